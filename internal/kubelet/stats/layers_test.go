// SPDX-License-Identifier: Apache-2.0

package stats_test

import (
	"context"
	"log/slog"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/memcri"
	"kaji/internal/kubelet/stats"
)

// disks is a runtime that says where its files lie.
type disks struct {
	*memcri.Runtime
	images, layers string
}

func (d disks) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	at := func(path string) []*runtimeapi.FilesystemUsage {
		if path == "" {
			return nil
		}
		return []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: path}}}
	}
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: at(d.images), ContainerFilesystems: at(d.layers)}, nil
}

// What containers write lies apart from images only where the runtime says that it
// has another file system.
func TestLayerSpace(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		layers string
		split  bool
	}{"nothing said": {"", false}, "the same": {dir, false}, "another": {"/dev", true}, "none that is there": {dir + "/none", false}} {
		t.Run(name, func(t *testing.T) {
			r := stats.New(stats.Config{Images: disks{memcri.New(memcri.Config{}), dir, c.layers}, RootDir: dir, Logger: slog.New(slog.DiscardHandler)})
			space, split := r.LayerSpace(t.Context())
			if split != c.split || split && space.Capacity == 0 {
				t.Errorf("got %+v, %v, want %v", space, split, c.split)
			}
		})
	}
}
