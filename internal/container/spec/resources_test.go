// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The kubelet limits huge pages of every container; where the machine has no
// controller of them, the container must start all the same.
func TestHugePages(t *testing.T) {
	r := &runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}}
	if got := Resources(r, Node{Hugetlb: true}).HugepageLimits; len(got) != 1 || got[0].Pagesize != "2MB" {
		t.Errorf("with a controller: %v", got)
	}
	if got := Resources(r, Node{}).HugepageLimits; len(got) != 0 {
		t.Errorf("without a controller: %v", got)
	}
}
