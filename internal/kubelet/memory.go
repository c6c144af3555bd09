// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"kaji/internal/kubelet/cgroup"
	"kaji/internal/kubelet/podrun"
)

// memory looks at what the kernel can do with memory; tree may be nil.
func memory(cfg Config, tree *cgroup.Tree) podrun.Memory {
	m := podrun.Memory{KillOne: cfg.KillOneProcess, Limited: cfg.LimitedSwap, Swap: cfg.Machine.Swap, HugePages: hugePages("/sys/kernel/mm/hugepages"), Off: cfg.NoMemoryQoS, QoS: cfg.MemoryQoS}
	if tree != nil {
		m.Unified, m.Accounted = tree.Unified(), tree.Swap()
	}
	return m
}

// hugePages lists the sizes of huge pages as the kernel writes them in names of
// control groups' files.
func hugePages(dir string) (sizes []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // a kernel without
	}
	for _, e := range entries {
		text, ok := strings.CutPrefix(filepath.Base(e.Name()), "hugepages-")
		n, err := strconv.ParseUint(strings.TrimSuffix(text, "kB"), 10, 64)
		if !ok || err != nil {
			continue
		}
		sizes = append(sizes, cgroup.PageSize(int64(n)<<10)) //nolint:gosec // a page is no larger
	}
	return sizes
}
