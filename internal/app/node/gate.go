// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/kubelet/podspec"
	"kaji/internal/podnet"
	"kaji/internal/policy"
)

// admitTimeout is how long a pod waits for its network policies before its
// start fails and is tried again.
const admitTimeout = 5 * time.Second

// gate lets no pod run before its network policies hold.
type gate struct {
	podnet.Network
	policies *policy.Enforcer // set before the runtime runs
}

// Setup implements podnet.Network. Pods of files may not be known to the API
// and never wait.
func (g *gate) Setup(ctx context.Context, s podnet.Sandbox) (*podnet.Result, error) {
	result, err := g.Network.Setup(ctx, s)
	if err != nil || g.policies == nil || static(s) {
		return result, err
	}
	wait, cancel := context.WithTimeout(ctx, admitTimeout)
	defer cancel()
	if err := g.policies.Admit(wait, s.Namespace, s.Name, types.UID(s.UID), result.IPs); err != nil {
		return nil, errors.Join(err, g.Network.Teardown(context.WithoutCancel(ctx), s))
	}
	return result, nil
}

// Collect implements podnet.Collector where the network does.
func (g *gate) Collect(ctx context.Context, sandboxes []podnet.Sandbox) error {
	if c, ok := g.Network.(podnet.Collector); ok {
		return c.Collect(ctx, sandboxes)
	}
	return nil
}

func static(s podnet.Sandbox) bool {
	source := s.Annotations[podspec.SourceAnnotation]
	return source != "" && source != "api"
}
