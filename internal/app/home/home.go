// SPDX-License-Identifier: Apache-2.0

// Package home says where a cluster keeps its files. Package app and the
// command line call it; it computes paths, and knows which version
// a directory belongs to.
package home

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// DefaultRoot holds one directory a cluster.
const DefaultRoot = "/var/lib/kaji"

// Dir is the data directory of one cluster.
type Dir string

var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$`)

// Named returns the directory of the named cluster; data overrides it.
func Named(name, data string) (Dir, error) {
	if !validName.MatchString(name) {
		return "", errors.New("a cluster's name is made of lower-case letters, digits and '-', and starts and ends with a letter or digit")
	}
	if data != "" {
		path, err := filepath.Abs(data)
		return Dir(path), err
	}
	return Dir(filepath.Join(DefaultRoot, name)), nil
}

// Exists says whether the cluster was ever started.
func (d Dir) Exists() bool {
	_, err := os.Stat(d.PKI())
	return err == nil
}

// Foreign says that the directory holds something, and nothing of a cluster's: it
// must not be used, and never be purged.
func (d Dir) Foreign() bool {
	if d.Exists() {
		return false
	}
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		switch d.join(e.Name()) {
		case d.Log(), d.PID(), d.Settings(), d.Version(), d.Handover():
		default:
			return err == nil
		}
	}
	return false
}

// Claim notes that a version works on the directory from now on. It refuses when a
// later minor version has before: what that one wrote might be lost.
func (d Dir) Claim(now string) error {
	mine, err := version.ParseSemantic(now)
	if err != nil {
		return nil // a build without a version
	}
	data, err := os.ReadFile(d.Version())
	if err == nil {
		theirs, err := version.ParseSemantic(strings.TrimSpace(string(data)))
		if err == nil && (theirs.Major() > mine.Major() || theirs.Major() == mine.Major() && theirs.Minor() > mine.Minor()) {
			return fmt.Errorf("the data in %s was written by kaji v%s, and this is the older v%s: use the newer program, or another --data-dir", d, theirs, mine)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(d.Version(), []byte(now+"\n"), 0o644)
}

func (d Dir) join(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// Store is the embedded store's directory.
func (d Dir) Store() string { return d.join("store") }

// PKI holds keys and certificates.
func (d Dir) PKI() string { return d.join("pki") }

// Kubelet is the node agent's root directory.
func (d Dir) Kubelet() string { return d.join("kubelet") }

// Runtime is the container runtime's root directory (images, layers).
func (d Dir) Runtime() string { return d.join("container") }

// Network is the pod network's state.
func (d Dir) Network() string { return d.join("network") }

// Volumes holds the volumes of the default StorageClass.
func (d Dir) Volumes() string { return d.join("volumes") }

// PodLogs holds the logs of containers.
func (d Dir) PodLogs() string { return d.join("pods-log") }

// Log is the cluster process's own log.
func (d Dir) Log() string { return d.join("kaji.log") }

// PID names the file with the cluster process's id.
func (d Dir) PID() string { return d.join("kaji.pid") }

// RemoveEmpty removes the directory if it holds nothing but the PID file of a
// process that has ended.
func (d Dir) RemoveEmpty() {
	if found, err := os.ReadDir(string(d)); err != nil || len(found) > 1 || len(found) == 1 && found[0].Name() != filepath.Base(d.PID()) {
		return
	}
	_ = os.Remove(d.PID())   // somebody else may have been quicker,
	_ = os.Remove(string(d)) // and what came meanwhile stays
}

// Handover names the file that tells a process, while it ends, that another takes
// its place: what it still answers may go on.
func (d Dir) Handover() string { return d.join("handover") }

// AdminKubeconfig is the kubeconfig of the cluster's administrator.
func (d Dir) AdminKubeconfig() string { return d.join("admin.kubeconfig") }

// Nodes holds the data of the nodes after the first, a directory each.
func (d Dir) Nodes() string { return d.join("nodes") }

// Node is the data directory of such a node.
func (d Dir) Node(name string) Dir { return Dir(d.join("nodes", name)) }

// Addons holds the owner's add-ons, a folder each.
func (d Dir) Addons() string { return d.join("addons") }

// Version names the version that worked on the directory last.
func (d Dir) Version() string { return d.join("version") }

// Settings remembers the flags the cluster was started with.
func (d Dir) Settings() string { return d.join("settings.json") }
