// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
)

func TestStopsInReverseOrder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := New(ctx, slog.New(slog.DiscardHandler))
	var mu sync.Mutex
	var order []string
	for _, name := range []string{"store", "apiserver", "kubelet"} {
		g.Go(name, func(ctx context.Context) error {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
			return ctx.Err()
		})
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"kubelet", "apiserver", "store"}; !slices.Equal(order, want) {
		t.Fatalf("stopped in order %v, want %v", order, want)
	}
}

func TestOneFailureEndsAll(t *testing.T) {
	g := New(t.Context(), slog.New(slog.DiscardHandler))
	boom := errors.New("boom")
	stopped := false
	g.Go("first", func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil })
	g.Go("second", func(context.Context) error { return boom })
	if err := g.Wait(); !errors.Is(err, boom) {
		t.Fatalf("got %v, want %v", err, boom)
	}
	if !stopped {
		t.Fatal("the other part was not stopped")
	}
}
