// A volume plugin for the tests, around docker's own helpers for plugins: a volume is a folder, mounted by a bind, once
// for all users, whose ids are kept in a file, as a plugin's state outlives its process. Each request is a line of the
// log. What the file FOLDER/behave says, it does: so a test makes it slow, or a liar.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/go-plugins-helpers/volume"
)

type driver struct {
	sync.Mutex
	folder string
}

func main() {
	// volume-plugin FOLDER SOCKET
	d := &driver{folder: os.Args[1]}
	if err := volume.NewHandler(d).ServeUnix(os.Args[2], 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (d *driver) path(parts ...string) string {
	return filepath.Join(append([]string{d.folder}, parts...)...)
}

// begin notes a request, and does what the test wants of its kind: "mount=slow", "mount=fail", "mount=relative", …
func (d *driver) begin(kind, line string) string {
	log, _ := os.OpenFile(d.path("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	fmt.Fprintln(log, kind, line)
	log.Close()
	text, _ := os.ReadFile(d.path("behave"))
	for _, word := range strings.Fields(string(text)) {
		if how, ok := strings.CutPrefix(word, kind+"="); ok {
			if how == "slow" {
				time.Sleep(time.Minute)
			}
			return how
		}
	}
	return ""
}

func failure(how string) error {
	if how == "fail" {
		return errors.New("told to fail")
	}
	return nil
}

func (d *driver) exists(name string) error {
	if _, err := os.Stat(d.path("data", name)); err != nil {
		return fmt.Errorf("no such volume here: %s", name)
	}
	return nil
}

func (d *driver) users(name string) []string {
	text, _ := os.ReadFile(d.path("users", name))
	return strings.Fields(string(text))
}

func (d *driver) setUsers(name string, users []string) {
	os.MkdirAll(d.path("users"), 0o700)
	os.WriteFile(d.path("users", name), []byte(strings.Join(users, "\n")), 0o600)
}

func (d *driver) Create(r *volume.CreateRequest) error {
	how := d.begin("create", fmt.Sprint(r.Name, " ", r.Options))
	if err := failure(how); err != nil {
		return err
	}
	return os.MkdirAll(d.path("data", r.Name), 0o755)
}

func (d *driver) Remove(r *volume.RemoveRequest) error {
	if err := failure(d.begin("remove", r.Name)); err != nil {
		return err
	}
	if err := d.exists(r.Name); err != nil {
		return err
	}
	if users := d.users(r.Name); len(users) > 0 {
		return fmt.Errorf("in use by %v", users)
	}
	return os.RemoveAll(d.path("data", r.Name))
}

func (d *driver) mountpoint(name string) string {
	if len(d.users(name)) == 0 {
		return ""
	}
	return d.path("mounts", name)
}

func (d *driver) Mount(r *volume.MountRequest) (*volume.MountResponse, error) {
	how := d.begin("mount", r.Name+" "+r.ID)
	switch how {
	case "fail":
		return nil, failure(how)
	case "relative":
		return &volume.MountResponse{Mountpoint: "data"}, nil
	case "up":
		return &volume.MountResponse{Mountpoint: d.folder + "/mounts/../../.."}, nil
	case "missing":
		return &volume.MountResponse{Mountpoint: d.path("nowhere")}, nil
	case "none":
		return &volume.MountResponse{}, nil
	case "huge":
		return &volume.MountResponse{Mountpoint: strings.Repeat("/huge", 4<<20)}, nil
	}
	d.Lock()
	defer d.Unlock()
	if err := d.exists(r.Name); err != nil {
		return nil, err
	}
	users := d.users(r.Name)
	if len(users) == 0 {
		os.MkdirAll(d.path("mounts", r.Name), 0o755)
		if err := syscall.Mount(d.path("data", r.Name), d.path("mounts", r.Name), "", syscall.MS_BIND, ""); err != nil {
			return nil, err
		}
	}
	for _, user := range users {
		if user == r.ID {
			return &volume.MountResponse{Mountpoint: d.mountpoint(r.Name)}, nil
		}
	}
	d.setUsers(r.Name, append(users, r.ID))
	return &volume.MountResponse{Mountpoint: d.mountpoint(r.Name)}, nil
}

func (d *driver) Unmount(r *volume.UnmountRequest) error {
	if err := failure(d.begin("unmount", r.Name+" "+r.ID)); err != nil {
		return err
	}
	d.Lock()
	defer d.Unlock()
	users := d.users(r.Name)
	left := []string{}
	for _, user := range users {
		if user != r.ID {
			left = append(left, user)
		}
	}
	if len(left) == len(users) {
		return fmt.Errorf("%s is not mounted for %s", r.Name, r.ID)
	}
	if len(left) == 0 {
		if err := syscall.Unmount(d.path("mounts", r.Name), 0); err != nil {
			return err
		}
	}
	d.setUsers(r.Name, left)
	return nil
}

func (d *driver) Path(r *volume.PathRequest) (*volume.PathResponse, error) {
	if err := failure(d.begin("path", r.Name)); err != nil {
		return nil, err
	}
	return &volume.PathResponse{Mountpoint: d.mountpoint(r.Name)}, d.exists(r.Name)
}

func (d *driver) Get(r *volume.GetRequest) (*volume.GetResponse, error) {
	if err := failure(d.begin("get", r.Name)); err != nil {
		return nil, err
	}
	if err := d.exists(r.Name); err != nil {
		return nil, err
	}
	return &volume.GetResponse{Volume: &volume.Volume{
		Name: r.Name, Mountpoint: d.mountpoint(r.Name), Status: map[string]any{"users": len(d.users(r.Name))},
	}}, nil
}

func (d *driver) List() (*volume.ListResponse, error) {
	if err := failure(d.begin("list", "")); err != nil {
		return nil, err
	}
	entries, _ := os.ReadDir(d.path("data"))
	all := []*volume.Volume{}
	for _, entry := range entries {
		all = append(all, &volume.Volume{Name: entry.Name(), Mountpoint: d.mountpoint(entry.Name())})
	}
	return &volume.ListResponse{Volumes: all}, nil
}

func (d *driver) Capabilities() *volume.CapabilitiesResponse {
	scope := "local"
	if d.begin("capabilities", "") == "global" {
		scope = "global"
	}
	return &volume.CapabilitiesResponse{Capabilities: volume.Capability{Scope: scope}}
}
