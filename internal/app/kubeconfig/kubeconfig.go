// SPDX-License-Identifier: Apache-2.0

// Package kubeconfig writes the files clients connect with, and merges a
// cluster's context into the file its user already has.
package kubeconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"kaji/internal/pki"
)

// New returns a kubeconfig with one context called name.
func New(name, server string, caPEM []byte, user pki.Pair) *clientcmdapi.Config {
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: caPEM}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: user.Cert, ClientKeyData: user.Key}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	return config
}

// Write writes config to path, readable by its owner only.
func Write(path string, config *clientcmdapi.Config) error {
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".kubeconfig-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o600), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// REST reads path as a client configuration; an empty path means the user's.
func REST(path string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	if path != "" {
		rules.ExplicitPath = path
	}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
}

// UserPath is the file a user's kubectl reads first: $KUBECONFIG's first
// entry, or ~/.kube/config. Under sudo it is the calling user's.
func UserPath() (string, error) {
	if list := filepath.SplitList(os.Getenv("KUBECONFIG")); len(list) > 0 && list[0] != "" {
		return list[0], nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding ~/.kube/config: %w", err)
	}
	return filepath.Join(home, ".kube", "config"), nil
}

// Merge adds the contexts of config to the file at path and makes its current
// context the current one; other contexts stay as they are.
func Merge(path string, config *clientcmdapi.Config) error {
	have, err := load(path)
	if err != nil {
		return err
	}
	for name, c := range config.Clusters {
		have.Clusters[name] = c
	}
	for name, a := range config.AuthInfos {
		have.AuthInfos[name] = a
	}
	for name, c := range config.Contexts {
		have.Contexts[name] = c
	}
	have.CurrentContext = config.CurrentContext
	return Write(path, have)
}

// Remove takes the named context, its cluster and user out of the file at
// path. A file that does not exist, or does not know the name, is left alone; one
// that is empty then is deleted.
func Remove(path, name string) error {
	have, err := load(path)
	if err != nil || have.Contexts[name] == nil {
		return err
	}
	delete(have.Contexts, name)
	delete(have.Clusters, name)
	delete(have.AuthInfos, name)
	if have.CurrentContext == name {
		have.CurrentContext = ""
	}
	if len(have.Contexts)+len(have.Clusters)+len(have.AuthInfos) == 0 {
		return os.Remove(path)
	}
	return Write(path, have)
}

func load(path string) (*clientcmdapi.Config, error) {
	config, err := clientcmd.LoadFromFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return clientcmdapi.NewConfig(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("the kubeconfig %s cannot be read, so it was left alone: %s", path, strings.TrimSpace(err.Error()))
	}
	return config, nil
}
