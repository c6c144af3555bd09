// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri/serve"
	"kaji/internal/kubelet/memcri"
)

// TestRuntime measures a runtime without containers by its socket and leaves
// nothing behind.
func TestRuntime(t *testing.T) {
	path, memory := filepath.Join(t.TempDir(), "cri.sock"), memcri.New(memcri.Config{})
	server, err := serve.New(serve.Config{Path: path, Runtime: memory, Images: memory})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	report := NewReport(nil)
	load := Runtime{Endpoint: "unix://" + path, PID: os.Getpid(), Image: "example.com/x", Command: []string{"wait"}, Pods: 6, AtOnce: 3}
	if err := load.Run(t.Context(), report); err != nil {
		t.Fatal(err)
	}
	want := []string{"start of a pod, 1 at once", "memory of a pod beside its workload, 1 at once", "removal of a pod, 1 at once",
		"start of a pod, 3 at once", "memory of a pod beside its workload, 3 at once", "removal of a pod, 3 at once"}
	var got []string
	for _, res := range report.Results() {
		got = append(got, res.Operation)
		if res.Count != 6 || res.Errors != 0 {
			t.Errorf("%s: %d of 6, %d errors: %s", res.Operation, res.Count, res.Errors, res.Error)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("measured %q, want %q", got, want)
	}
	left, err := memory.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil || len(left.GetItems()) > 0 {
		t.Errorf("%d pods are left (%v)", len(left.GetItems()), err)
	}
	if err := (Runtime{Endpoint: "unix://" + path, PID: 1 << 30, Image: "x", Pods: 1, AtOnce: 1}).Run(t.Context(), report); err == nil || !strings.Contains(err.Error(), "no process") {
		t.Errorf("a process that is none: %v", err)
	}
}
