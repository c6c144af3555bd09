// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"maps"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Resources translates limits; zero means none.
func Resources(r *runtimeapi.LinuxContainerResources, node Node) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if r == nil {
		return out
	}
	cpu := &specs.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()}
	if p := r.GetCpuPeriod(); p > 0 {
		cpu.Period = ptr(uint64(p))
	}
	if q := r.GetCpuQuota(); q != 0 {
		cpu.Quota = ptr(q)
	}
	if s := r.GetCpuShares(); s > 0 {
		cpu.Shares = ptr(uint64(s))
	}
	out.CPU = cpu
	if limit := r.GetMemoryLimitInBytes(); limit > 0 {
		out.Memory = &specs.LinuxMemory{Limit: ptr(limit)}
		if swap := r.GetMemorySwapLimitInBytes(); swap > 0 && node.SwapAccounting {
			out.Memory.Swap = ptr(swap)
		}
	}
	if node.Hugetlb {
		for _, h := range r.GetHugepageLimits() {
			out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: h.GetPageSize(), Limit: h.GetLimit()})
		}
	}
	if node.CgroupV2 && len(r.GetUnified()) > 0 {
		out.Unified = maps.Clone(r.GetUnified())
	}
	return out
}

func ptr[T any](v T) *T { return &v }
