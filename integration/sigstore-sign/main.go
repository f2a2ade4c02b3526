// Signs a digest as cosign does without a key, with a certificate authority, a log and a clock that sigstore's own
// library has for its tests. All of them last for as long as the program runs.
//
//	sigstore-sign SHA256 EMAIL ISSUER FOLDER
package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sigstore-sign:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 4 {
		return fmt.Errorf("usage: sigstore-sign SHA256 EMAIL ISSUER FOLDER")
	}
	digest, email, issuer, folder := arguments[0], arguments[1], arguments[2], arguments[3]
	sigstore, err := ca.NewVirtualSigstore()
	if err != nil {
		return err
	}
	statement, err := json.Marshal(map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"predicateType": "https://sigstore.dev/cosign/sign/v1",
		"subject":       []any{map[string]any{"digest": map[string]string{"sha256": digest}}},
		"predicate":     map[string]any{},
	})
	if err != nil {
		return err
	}
	logs := sigstore.RekorLogs()
	for id, log := range logs {
		// The library has put it down in hexadecimal.
		if log.ID, err = hex.DecodeString(id); err != nil {
			return err
		}
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, sigstore.FulcioCertificateAuthorities(), nil,
		sigstore.TimestampingAuthorities(), logs)
	if err != nil {
		return err
	}
	trustedJSON, err := trusted.MarshalJSON()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "trusted_root.json"), trustedJSON, 0o644); err != nil {
		return err
	}
	// Not before the certificate, which is yet to be made.
	soon := time.Now().Add(time.Second)
	older, err := sigstore.AttestAtTime(email, issuer, statement, soon, true)
	if err != nil {
		return err
	}
	newer, err := sigstore.AttestAtTimeHashedRekordV2(email, issuer, statement, soon)
	if err != nil {
		return err
	}
	for name, entity := range map[string]*ca.TestEntity{"rekor1": older, "rekor2": newer} {
		signed, err := encode(sigstore, entity)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := check(signed, trusted, digest, email, issuer); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		text, err := protojson.Marshal(signed)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, name+".json"), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// What was signed, in the form in which it is kept in registries.
func encode(sigstore *ca.VirtualSigstore, entity *ca.TestEntity) (*protobundle.Bundle, error) {
	verification, err := entity.VerificationContent()
	if err != nil {
		return nil, err
	}
	content, err := entity.SignatureContent()
	if err != nil {
		return nil, err
	}
	entries, err := entity.TlogEntries()
	if err != nil {
		return nil, err
	}
	times, err := entity.Timestamps()
	if err != nil {
		return nil, err
	}
	envelope := content.EnvelopeContent().RawEnvelope()
	payload, err := envelope.DecodeB64Payload()
	if err != nil {
		return nil, err
	}
	entry := entries[0].TransparencyLogEntry()
	if entry.KindVersion == nil {
		if err := promise(sigstore, entry); err != nil {
			return nil, err
		}
	}
	return &protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_Certificate{
				Certificate: &protocommon.X509Certificate{RawBytes: verification.Certificate().Raw},
			},
			TlogEntries: []*protorekor.TransparencyLogEntry{entry},
			TimestampVerificationData: &protobundle.TimestampVerificationData{
				Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: times[0]}},
			},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload:     payload,
			PayloadType: envelope.PayloadType,
			Signatures:  []*protodsse.Signature{{Sig: content.Signature()}},
		}},
	}, nil
}

// Adds what the library keeps beside an entry of the older log: its kind, and the promise to take it in.
func promise(sigstore *ca.VirtualSigstore, entry *protorekor.TransparencyLogEntry) error {
	promise, err := sigstore.RekorSignPayload(tlog.RekorPayload{
		Body:           base64.StdEncoding.EncodeToString(entry.CanonicalizedBody),
		IntegratedTime: entry.IntegratedTime,
		LogIndex:       entry.LogIndex,
		LogID:          hex.EncodeToString(entry.LogId.KeyId),
	})
	if err != nil {
		return err
	}
	entry.KindVersion = &protorekor.KindVersion{Kind: "dsse", Version: "0.0.1"}
	entry.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: promise}
	return nil
}

// What the library itself doesn't accept is no example.
func check(signed *protobundle.Bundle, trusted root.TrustedMaterial, digest, email, issuer string) error {
	parsed, err := bundle.NewBundle(signed)
	if err != nil {
		return err
	}
	verifier, err := verify.NewVerifier(trusted, verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1))
	if err != nil {
		return err
	}
	identity, err := verify.NewShortCertificateIdentity(issuer, "", email, "")
	if err != nil {
		return err
	}
	hash, err := hex.DecodeString(digest)
	if err != nil {
		return err
	}
	policy := verify.NewPolicy(verify.WithArtifactDigest("sha256", hash), verify.WithCertificateIdentity(identity))
	_, err = verifier.Verify(parsed, policy)
	return err
}
