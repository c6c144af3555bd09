// SPDX-License-Identifier: Apache-2.0

package apiserver_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"kaji/internal/api/catalog"
	"kaji/internal/apiserver"
	"kaji/internal/store/memory"
)

// TestAServerStartsAgainOnItsStore starts twice: what every cluster has is there
// the second time, its cluster IP taken by itself.
func TestAServerStartsAgainOnItsStore(t *testing.T) {
	s := memory.New()
	defer s.Close()
	for _, which := range []string{"first", "second"} {
		server, err := apiserver.New(apiserver.Config{Store: s, Kinds: catalog.All(), AlwaysAllow: true,
			ServiceRanges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- server.Run(ctx) }()
		select {
		case <-server.Booted():
		case <-time.After(20 * time.Second):
			t.Errorf("the %s start never ended", which)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
