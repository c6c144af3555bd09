// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of a resolver's configuration, as upstream has them.
const (
	maxNameservers   = 3
	maxSearchDomains = 32
	maxSearchChars   = 2048
)

// DNS makes the name resolution of pods.
type DNS struct {
	// Cluster are the addresses of the cluster's name servers.
	Cluster []netip.Addr
	// Domain is the cluster's domain, such as "cluster.local".
	Domain string
	// HostConfig is the content of the host's resolv.conf.
	HostConfig func() (io.ReadCloser, error)
	// NodeIPs choose the name server of a pod that has no other.
	NodeIPs []netip.Addr
}

// Config returns what a pod's containers find in resolv.conf. The warnings are
// for events of the pod: reason and message.
func (d *DNS) Config(pod *corev1.Pod) (*runtimeapi.DNSConfig, []Warning, error) {
	host, err := d.host()
	if err != nil {
		return nil, nil, err
	}
	var warnings []Warning
	config := &runtimeapi.DNSConfig{}
	switch policy := d.policy(pod, &warnings); policy {
	case corev1.DNSNone:
	case corev1.DNSClusterFirst:
		if len(d.Cluster) == 0 {
			config = host
			break
		}
		for _, addr := range d.Cluster {
			config.Servers = append(config.Servers, addr.String())
		}
		if d.Domain != "" {
			config.Searches = []string{pod.Namespace + ".svc." + d.Domain, "svc." + d.Domain, d.Domain}
		}
		config.Searches = unique(append(config.Searches, host.Searches...))
		config.Options = []string{"ndots:5"}
	default:
		config = host
		if len(config.Servers) == 0 && len(config.Searches) == 0 {
			// A resolver of the host that is not reachable from the pod is worse
			// than none; upstream gives the loopback address of the family.
			config.Servers = []string{"127.0.0.1"}
			if len(d.NodeIPs) > 0 && d.NodeIPs[0].Is6() {
				config.Servers = []string{"::1"}
			}
			config.Searches = []string{"."}
		}
	}
	if own := pod.Spec.DNSConfig; own != nil {
		config.Servers = unique(append(config.Servers, own.Nameservers...))
		config.Searches = unique(append(config.Searches, own.Searches...))
		config.Options = mergeOptions(config.Options, own.Options)
	}
	return d.limit(pod, config, &warnings), warnings, nil
}

// Warning is an event of type Warning that a pod should get.
type Warning struct{ Reason, Message string }

func (d *DNS) policy(pod *corev1.Pod, warnings *[]Warning) corev1.DNSPolicy {
	switch pod.Spec.DNSPolicy {
	case corev1.DNSNone:
		return corev1.DNSNone
	case corev1.DNSClusterFirstWithHostNet:
		return d.orMissing(pod, warnings)
	case corev1.DNSClusterFirst, "":
		if !pod.Spec.HostNetwork {
			return d.orMissing(pod, warnings)
		}
	}
	return corev1.DNSDefault
}

func (d *DNS) orMissing(pod *corev1.Pod, warnings *[]Warning) corev1.DNSPolicy {
	if len(d.Cluster) == 0 {
		*warnings = append(*warnings, Warning{"MissingClusterDNS", fmt.Sprintf(
			"kubelet does not have ClusterDNS IP configured and cannot create Pod using %q policy. Falling back to %q policy.",
			corev1.DNSClusterFirst, corev1.DNSDefault)})
		return corev1.DNSDefault
	}
	return corev1.DNSClusterFirst
}

func (d *DNS) limit(pod *corev1.Pod, c *runtimeapi.DNSConfig, warnings *[]Warning) *runtimeapi.DNSConfig {
	if len(c.Servers) > maxNameservers {
		c.Servers = c.Servers[:maxNameservers]
		*warnings = append(*warnings, Warning{"DNSConfigForming", fmt.Sprintf(
			"Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: %s", strings.Join(c.Servers, " "))})
	}
	cut := false
	if len(c.Searches) > maxSearchDomains {
		c.Searches, cut = c.Searches[:maxSearchDomains], true
	}
	for len(strings.Join(c.Searches, " ")) > maxSearchChars {
		c.Searches, cut = c.Searches[:len(c.Searches)-1], true
	}
	if cut {
		*warnings = append(*warnings, Warning{"DNSConfigForming", fmt.Sprintf(
			"Search Line limits were exceeded, some search paths have been omitted, the applied search line is: %s", strings.Join(c.Searches, " "))})
	}
	return c
}

func unique(s []string) []string {
	var out []string
	for _, one := range s {
		if !slices.Contains(out, one) {
			out = append(out, one)
		}
	}
	return out
}

// mergeOptions lets the pod's options override those of the same name.
func mergeOptions(existing []string, own []corev1.PodDNSConfigOption) []string {
	var names []string
	values := map[string]string{}
	put := func(name, value string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		values[name] = value
	}
	for _, o := range existing {
		name, value, _ := strings.Cut(o, ":")
		put(name, value)
	}
	for _, o := range own {
		value := ""
		if o.Value != nil {
			value = *o.Value
		}
		put(o.Name, value)
	}
	var out []string
	for _, name := range names {
		if values[name] != "" {
			name += ":" + values[name]
		}
		out = append(out, name)
	}
	return out
}

func (d *DNS) host() (*runtimeapi.DNSConfig, error) {
	if d.HostConfig == nil {
		return &runtimeapi.DNSConfig{}, nil
	}
	f, err := d.HostConfig()
	if err != nil {
		return nil, fmt.Errorf("read the host's resolv.conf: %w", err)
	}
	defer f.Close()
	return ParseResolvConf(f)
}

// ParseResolvConf reads a resolver's configuration of at most 10 MB.
func ParseResolvConf(r io.Reader) (*runtimeapi.DNSConfig, error) {
	config := &runtimeapi.DNSConfig{}
	lines := bufio.NewScanner(io.LimitReader(r, 10<<20))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if len(fields) >= 2 {
				config.Servers = append(config.Servers, fields[1])
			}
		case "search":
			config.Searches = nil
			for _, s := range fields[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				config.Searches = append(config.Searches, s)
			}
		case "options":
			config.Options = unique(append(config.Options, fields[1:]...))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read resolv.conf: %w", err)
	}
	return config, nil
}
