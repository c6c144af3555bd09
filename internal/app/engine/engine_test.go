// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/app/depot"
	"kaji/internal/container/image"
	"kaji/internal/cri/socket"
)

// TestRuntimeAlone serves the CRI and the images of one runtime, keeps a second
// from its data, and lets its images be worked on when it has stopped.
func TestRuntimeAlone(t *testing.T) {
	dir := t.TempDir()
	c := Config{Listen: "unix://" + filepath.Join(dir, "kaji.sock"), Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"),
		CNIConfDir: filepath.Join(dir, "net.d"), CgroupRoot: "/kaji-engine-test", Version: "v0.0.1", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, c) }()
	t.Cleanup(cancel)
	client := dial(t, c.Listen, done)
	version, err := client.Version(t.Context(), &runtimeapi.VersionRequest{})
	if err != nil || version.GetRuntimeName() != "kaji" || version.GetRuntimeVersion() != "v0.0.1" {
		t.Errorf("Version: %v, %v", version, err)
	}
	status, err := client.Status(t.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, condition := range status.GetStatus().GetConditions() {
		if want := condition.GetType() == "RuntimeReady"; condition.GetStatus() != want {
			t.Errorf("without a network: %v", condition)
		}
	}
	if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "a runtime runs already with the data in") {
		t.Errorf("a second runtime: %v", err)
	}
	if _, err := depot.Open(c.Root, ""); err == nil || !strings.Contains(err.Error(), "give --state instead") {
		t.Errorf("opening the images of a running runtime: %v", err)
	}
	images, err := depot.Dial(c.State)
	if err != nil {
		t.Fatal(err)
	}
	work(t, images)
	if err := images.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if images, err = depot.Open(c.Root, ""); err != nil {
		t.Fatal(err)
	}
	work(t, images)
	if err := images.Close(); err != nil {
		t.Error(err)
	}
}

func dial(t *testing.T, address string, done <-chan error) *socket.Client {
	t.Helper()
	client, err := socket.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		if _, err = client.Version(ctx, &runtimeapi.VersionRequest{}); err == nil {
			return client
		}
		select {
		case <-tick.C:
		case err := <-done:
			t.Fatalf("the runtime ended: %v", err)
		case <-ctx.Done():
			t.Fatalf("the runtime does not answer: %v", err)
		}
	}
}

// work builds an image, names it again, takes it out and brings it back.
func work(t *testing.T, c *depot.Client) {
	t.Helper()
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := (depot.Build{Path: tree, Tag: "example.com/x:v1", Entrypoint: []string{"/file"}}).Write(&archive); err != nil {
		t.Fatal(err)
	}
	built, err := c.Import(t.Context(), &archive)
	if err != nil || len(built) != 1 {
		t.Fatalf("Import: %v, %v", built, err)
	}
	if err := c.Tag(t.Context(), "example.com/x:v1", "example.com/y:v2"); err != nil {
		t.Fatal(err)
	}
	archive.Reset()
	if err := c.Export(t.Context(), &archive, image.FormatOCI, "example.com/y:v2"); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context(), built[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context(), "example.com/y:v2"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("removing it again: %v", err)
	}
	if back, err := c.Import(t.Context(), &archive); err != nil || len(back) != 1 || back[0].ID != built[0].ID {
		t.Errorf("imported %v, %v; want %s again", back, err, built[0].ID)
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("List: %v, %v; want localhost/kaji and what was built", list, err)
	}
	if _, err := c.Import(t.Context(), strings.NewReader("noise")); err == nil || !strings.Contains(err.Error(), "reading the archive") {
		t.Errorf("importing noise: %v", err)
	}
	if err := c.Export(t.Context(), &archive, image.FormatOCI, "example.com/none"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("exporting what is not there: %v", err)
	}
}
