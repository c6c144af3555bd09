// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
	configv1beta1 "k8s.io/kubelet/config/v1beta1"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver"
	"kaji/internal/client/direct"
	"kaji/internal/lifecycle"
	"kaji/internal/store"
	"kaji/internal/store/memory"
)

// alone stands in for the API server where the agent was given none: one in this
// process, on a store in memory, that has no socket. So there is one way of working
// only; what the agent writes there of its node and its static pods, nobody reads.
type alone struct {
	store  store.Store
	server *apiserver.Server
	client *direct.Client
}

func newAlone(log *slog.Logger) (*alone, error) {
	agent := &user.DefaultInfo{Name: "kubelet", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
	everybody := authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: agent}, true, nil // only the agent gets here
	})
	a := &alone{store: memory.New()}
	var err error
	a.server, err = apiserver.New(apiserver.Config{Store: a.store, Kinds: catalog.Current(), AlwaysAllow: true, Authenticator: everybody, Logger: log,
		// No controllers run here that would make accounts and namespaces or take taints away.
		DisabledAdmission: []string{"ServiceAccount", "TaintNodesByCondition", "StorageObjectInUseProtection", "NamespaceLifecycle"}})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("standalone mode: %w", err), a.store.Close())
	}
	a.client = direct.New(a.server.Direct(agent, "kubelet"), &rest.Config{Host: "https://standalone", QPS: -1, Transport: direct.Transport(a.server.Handler())})
	return a, nil
}

// start runs the server; it returns once it answers.
func (a *alone) start(ctx context.Context, group *lifecycle.Group) {
	group.Go("standalone", func(ctx context.Context) error {
		err := a.server.Run(ctx)
		a.client.Wait()
		return errors.Join(err, a.store.Close())
	})
	select {
	case <-a.server.Booted():
	case <-ctx.Done():
	}
}

// fitsAlone refuses settings that need somebody to ask.
func fitsAlone(c *configv1beta1.KubeletConfiguration) error {
	switch {
	case *c.Authentication.Webhook.Enabled:
		return errors.New("no client provided, cannot use webhook authentication")
	case c.Authorization.Mode == configv1beta1.KubeletAuthorizationModeWebhook:
		return errors.New("no client provided, cannot use webhook authorization")
	case c.ServerTLSBootstrap:
		return errors.New("no client provided, cannot request a serving certificate")
	}
	return nil
}
