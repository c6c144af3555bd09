// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
)

// unit is systemd's slice for a group.
func (t *Tree) unit(elements []string, l Limits) (cgroups.Manager, *cgroups.Resources, error) {
	parts := t.slices(elements)
	config := &cgroups.Cgroup{Systemd: true, Parent: "-.slice", Name: slice(parts), Resources: t.resources(l)}
	if len(parts) > 1 {
		config.Parent = slice(parts[:len(parts)-1])
	}
	if len(elements) == 1 && t.unified {
		// Without a set systemd would take the controller from all groups below.
		all, err := os.ReadFile(filepath.Join(t.cfg.Mount, "cpuset.cpus.effective"))
		if err == nil {
			config.Resources.CpusetCpus = strings.TrimSpace(string(all))
		}
	}
	m, err := manager.New(config)
	return m, config.Resources, err
}

// resources are limits in the terms of the library that talks to systemd.
func (t *Tree) resources(l Limits) *cgroups.Resources {
	r := &cgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true, Memory: l.Memory}
	if t.unified {
		r.CpuWeight = uint64(Weight(l.Shares))
	} else {
		r.CpuShares = uint64(l.Shares)
	}
	if l.Period > 0 {
		r.CpuPeriod, r.CpuQuota = uint64(l.Period), l.Quota
	}
	if l.Pids > 0 {
		r.PidsLimit = &l.Pids
	}
	for size, bytes := range l.HugePages {
		r.HugetlbLimit = append(r.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: size, Limit: uint64(bytes)}) //nolint:gosec // not negative
	}
	if t.unified {
		r.Unified = l.Unified
	}
	return r
}

// makeSlice has systemd make a slice, unless it has, and limits it.
func (t *Tree) makeSlice(elements []string, l Limits) error {
	m, r, err := t.unit(elements, l)
	if err != nil {
		return err
	}
	if !m.Exists() {
		if err := m.Apply(-1); err != nil { // no process: the slice alone
			return fmt.Errorf("make slice %s: %w", slice(t.slices(elements)), err)
		}
	}
	return m.Set(r)
}

func (t *Tree) limitSlice(elements []string, l Limits) error {
	m, r, err := t.unit(elements, l)
	if err != nil {
		return err
	}
	return m.Set(r)
}

// removeSlice has systemd forget a slice whose groups are gone.
func (t *Tree) removeSlice(elements []string) error {
	m, _, err := t.unit(elements, Limits{})
	if err != nil {
		return err
	}
	return m.Destroy()
}
