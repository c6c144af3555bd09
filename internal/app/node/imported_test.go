// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/cri"
)

// late has its image from the moment it is given one, and no registry.
type late struct {
	cri.Images
	id string
}

func (l *late) ImageStatus(context.Context, *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	if l.id == "" {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: l.id}}, nil
}

func (l *late) PullImage(context.Context, *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	return nil, errors.New("no registry")
}

// A pod of the first moments waits for the node's own image instead of failing
// its pull; pods with other images do not wait.
func TestPullWaitsForTheImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there, images := make(chan struct{}), &late{}
		i := imported{images, there}
		pull := func(ctx context.Context, name string) (*runtimeapi.PullImageResponse, error) {
			return i.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: name}})
		}
		if _, err := pull(t.Context(), "registry.example/i"); err == nil || err.Error() != "no registry" {
			t.Errorf("another image: %v", err)
		}
		impatient, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := pull(impatient, "localhost/kaji"); !errors.Is(err, context.Canceled) {
			t.Errorf("who does not wait: %v", err)
		}
		got := make(chan string, 1)
		go func() {
			res, err := pull(t.Context(), "localhost/kaji")
			if err != nil {
				t.Error(err)
			}
			got <- res.GetImageRef()
		}()
		synctest.Wait()
		select {
		case ref := <-got:
			t.Fatalf("did not wait: %q", ref)
		default:
		}
		images.id = "sha256:1"
		close(there)
		if ref := <-got; ref != "sha256:1" {
			t.Errorf("got %q", ref)
		}
	})
}
