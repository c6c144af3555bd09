// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// defaultCapabilities are what every container has unless it drops them; the
// set that all container runtimes agree on.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// HostCapabilities are the names of what this process can give away.
func HostCapabilities() ([]string, error) {
	caps, err := capability.NewPid2(0)
	if err != nil {
		return nil, err
	}
	if err := caps.Load(); err != nil {
		return nil, err
	}
	supported, err := capability.ListSupported()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range supported {
		if caps.Get(capability.BOUNDING, c) {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return names, nil
}

func capabilities(security *runtimeapi.LinuxContainerSecurityContext, host []string) (*specs.LinuxCapabilities, error) {
	set := slices.Clone(defaultCapabilities)
	c := security.GetCapabilities()
	if security.GetPrivileged() {
		set = slices.Clone(host)
	}
	has := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
	}
	// ALL first, whichever way; then single ones on top of it.
	if has(c.GetAddCapabilities(), "ALL") {
		set = slices.Clone(host)
	}
	if has(c.GetDropCapabilities(), "ALL") {
		set = nil
	}
	names := func(list []string) ([]string, error) {
		var out []string
		for _, name := range list {
			if strings.EqualFold(name, "ALL") {
				continue
			}
			full := "CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_")
			if !slices.Contains(host, full) {
				if _, err := capabilityOf(full); err != nil {
					return nil, err
				}
			}
			out = append(out, full)
		}
		return out, nil
	}
	add, err := names(c.GetAddCapabilities())
	if err != nil {
		return nil, err
	}
	ambient, err := names(c.GetAddAmbientCapabilities())
	if err != nil {
		return nil, err
	}
	drop, err := names(c.GetDropCapabilities())
	if err != nil {
		return nil, err
	}
	set = append(append(set, add...), ambient...)
	set = slices.DeleteFunc(set, func(s string) bool { return slices.Contains(drop, s) || !slices.Contains(host, s) })
	slices.Sort(set)
	set = slices.Compact(set)
	out := &specs.LinuxCapabilities{Bounding: set, Effective: set, Permitted: set}
	if len(ambient) > 0 {
		out.Inheritable, out.Ambient = ambient, ambient
	}
	return out, nil
}

// capabilityOf tells names that no kernel knows from those this process lacks.
func capabilityOf(name string) (capability.Cap, error) {
	for _, c := range capability.ListKnown() {
		if "CAP_"+strings.ToUpper(c.String()) == name {
			return c, nil
		}
	}
	return 0, fmt.Errorf("unknown capability %q", name)
}
