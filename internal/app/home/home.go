// SPDX-License-Identifier: Apache-2.0

// Package home says where a cluster keeps its files. Package app and the
// command line call it; it only computes paths.
package home

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
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

// AdminKubeconfig is the kubeconfig of the cluster's administrator.
func (d Dir) AdminKubeconfig() string { return d.join("admin.kubeconfig") }

// Nodes holds the data of the nodes after the first, a directory each.
func (d Dir) Nodes() string { return d.join("nodes") }

// Node is the data directory of such a node.
func (d Dir) Node(name string) Dir { return Dir(d.join("nodes", name)) }

// Settings remembers the flags the cluster was started with.
func (d Dir) Settings() string { return d.join("settings.json") }
