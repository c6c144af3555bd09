// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/version"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/node"
)

// runtimeFacts is what the container runtime last said of itself.
type runtimeFacts struct {
	name, version string
	// network is why pods cannot be connected, "" where they can.
	network string
	rro     bool
	// userns says whether pods may have user namespaces of their own.
	userns bool
}

func quantity(n int64) resource.Quantity { return *resource.NewQuantity(n, resource.DecimalSI) }

func (k *Kubelet) version(ctx context.Context) (*runtimeFacts, error) {
	answer, err := k.cfg.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask the runtime's version: %w", err)
	}
	return &runtimeFacts{name: answer.RuntimeName, version: plainVersion(answer.RuntimeVersion)}, nil
}

// plainVersion is a runtime's version as nodes show it: "v2.1.3" is "2.1.3".
func plainVersion(text string) string {
	v, err := version.ParseSemantic(text)
	if err != nil {
		v, err = version.ParseGeneric(text)
	}
	if err != nil {
		return text
	}
	return v.String()
}

// askRuntime asks the runtime how it is, for the node's status.
func (k *Kubelet) askRuntime(ctx context.Context) node.Runtime {
	facts, err := k.version(ctx)
	if err != nil {
		last := k.runtime.Load()
		return node.Runtime{Version: last.name + "://" + last.version, Problems: []string{fmt.Sprintf("container runtime is down: %v", err)}}
	}
	out := node.Runtime{Version: facts.name + "://" + facts.version}
	answer, err := k.cfg.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		out.Problems = append(out.Problems, fmt.Sprintf("container runtime status check failed: %v", err))
		return out
	}
	for _, c := range answer.GetStatus().GetConditions() {
		if c.Status {
			continue
		}
		text := fmt.Sprintf("%s=%t reason:%s message:%s", c.Type, c.Status, c.Reason, c.Message)
		switch c.Type {
		case runtimeapi.RuntimeReady:
			out.Problems = append(out.Problems, "container runtime not ready: "+text)
		case runtimeapi.NetworkReady:
			facts.network = "container runtime network not ready: " + text
			out.Problems = append(out.Problems, facts.network)
		}
	}
	for _, h := range answer.GetRuntimeHandlers() {
		handler := corev1.NodeRuntimeHandler{Name: h.Name}
		if f := h.Features; f != nil {
			rro, userns := f.RecursiveReadOnlyMounts, f.UserNamespaces
			handler.Features = &corev1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &rro, UserNamespaces: &userns}
			if h.Name == "" {
				facts.rro, facts.userns = rro, userns
			}
		}
		out.Handlers = append(out.Handlers, handler)
	}
	out.SupplementalGroupsPolicy = answer.GetFeatures().GetSupplementalGroupsPolicy()
	k.mu.Lock()
	listing := k.mu.listing
	k.mu.Unlock()
	if listing != nil {
		out.Problems = append(out.Problems, fmt.Sprintf("PLEG is not healthy: %v", listing))
	}
	former := k.runtime.Swap(facts)
	if former.network != "" && facts.network == "" {
		k.pool.WakeAll()
	}
	return out
}

// listed notes how the runtime's last listing went.
func (k *Kubelet) listed(err error) {
	k.mu.Lock()
	turned := (k.mu.listing == nil) != (err == nil)
	k.mu.listing = err
	k.mu.Unlock()
	if turned {
		k.node.Wake()
	}
}
