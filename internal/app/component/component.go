// SPDX-License-Identifier: Apache-2.0

// Package component runs one component of a cluster as a process of its own,
// against any API server: the verbs controller-manager, scheduler, kubelet and
// proxy, which take upstream's flags and stand in for upstream's binaries. The
// all in one cluster wires the same components elsewhere and does not need it.
package component

import (
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/version"
)

// restConfig reads a kubeconfig; without one, the process is taken to run in a
// pod of the cluster. master overrides the server.
func restConfig(kubeconfig, master, agent string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags(master, kubeconfig)
	if err != nil {
		return nil, err
	}
	v := version.Get()
	config.UserAgent = agent + "/" + v.GitVersion + " (" + v.Platform + ") kaji"
	return config, nil
}

// hostname names this instance in leases and events.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
