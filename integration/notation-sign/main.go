// Signs an image in a registry on this machine as notation does, with notation's own library: the module of its
// command line is not to be had from the Go proxy.
//
//	notation-sign REFERENCE KEY.pem CHAIN.pem jws|cose [EXPIRES-IN]
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/signer"
	"oras.land/oras-go/v2/registry/remote"
)

func main() {
	if err := sign(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "notation-sign:", err)
		os.Exit(1)
	}
}

func sign(arguments []string) error {
	if len(arguments) != 4 && len(arguments) != 5 {
		return fmt.Errorf("usage: notation-sign REFERENCE KEY.pem CHAIN.pem jws|cose [EXPIRES-IN]")
	}
	reference, key, chain := arguments[0], arguments[1], arguments[2]
	mediaType, known := map[string]string{"jws": jws.MediaTypeEnvelope, "cose": cose.MediaTypeEnvelope}[arguments[3]]
	if !known {
		return fmt.Errorf("%q is neither jws nor cose", arguments[3])
	}
	options := notation.SignOptions{ArtifactReference: reference}
	options.SignatureMediaType = mediaType
	if len(arguments) == 5 {
		expiry, err := time.ParseDuration(arguments[4])
		if err != nil {
			return err
		}
		options.ExpiryDuration = expiry
	}
	with, err := signer.NewGenericSignerFromFiles(key, chain)
	if err != nil {
		return err
	}
	repository, err := remote.NewRepository(reference)
	if err != nil {
		return err
	}
	repository.PlainHTTP = true
	_, err = notation.Sign(context.Background(), with, registry.NewRepository(repository), options)
	return err
}
