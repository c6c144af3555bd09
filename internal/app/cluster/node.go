// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/tls"
	"fmt"

	"kaji/internal/app/node"
	"kaji/internal/client"
	"kaji/internal/pki"
)

// identities are who the node's components are at the API.
func (cl *Cluster) identity(component string) (name string, groups []string, err error) {
	switch component {
	case node.Kubelet:
		return "system:node:" + cl.c.NodeName, []string{"system:nodes"}, nil
	case node.Proxy:
		return "system:kube-proxy", []string{"system:node-proxier"}, nil
	case node.DNS, node.IngressController, node.Provisioner:
		return "system:serviceaccount:kube-system:" + component, []string{"system:serviceaccounts", "system:serviceaccounts:kube-system"}, nil
	}
	return "", nil, fmt.Errorf("no identity for %q", component)
}

// newNode makes the node beside the control plane.
func (cl *Cluster) newNode() (*node.Node, error) {
	c := cl.c
	dns, err := cl.clusterDNS()
	if err != nil {
		return nil, err
	}
	authenticator, authorizer := cl.plane.Trust()
	c.Ingress.Lead, c.Ingress.OwnAddresses = true, c.LoadBalancer && len(c.LoadBalancerPools) > 0
	return node.New(node.Config{
		Name: c.Name, Dir: c.Dir, NodeName: c.NodeName, NodeIPs: c.NodeIPs, PodCIDRs: c.PodCIDRs, Plugins: c.Plugins, DNS: dns, Domain: c.Domain,
		CgroupDriver: c.CgroupDriver, KubeletPort: c.KubeletPort, HealthzBindAddress: c.HealthzBindAddress, ProxyMetricsBindAddress: c.ProxyMetricsBindAddress, Ingress: c.Ingress, Off: c.Off,
		Client: func(component string) (client.Interface, error) {
			name, groups, err := cl.identity(component)
			if err != nil {
				return nil, err
			}
			return cl.plane.Client(name, groups, component)
		},
		Serving: func(leaf pki.Leaf) (tls.Certificate, error) {
			pair, err := cl.plane.Keys.CA.Ensure(c.Dir.PKI(), "kubelet", leaf)
			if err != nil {
				return tls.Certificate{}, err
			}
			return pair.TLS()
		},
		Authenticator: authenticator, Authorizer: authorizer, Permitted: cl.addonsTried, Metrics: cl.metrics, Logger: c.Logger,
	})
}
