// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/image"
	"kaji/internal/kubelet/memcri"
	"kaji/internal/kubelet/meter"
	"kaji/internal/kubelet/podworker"
	"kaji/internal/kubelet/stats"
	"kaji/internal/kubelet/status"
	"kaji/internal/kubelet/userns"
	"kaji/internal/kubelet/volume"
)

// odd is a runtime whose images lie where there is no room at all, and that cannot
// list its sandboxes.
type odd struct{ *memcri.Runtime }

func (odd) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/proc"}}}}, nil
}

func (odd) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return nil, errors.New("no sandboxes today")
}

// stuck never ends a pod.
type stuck struct{ podworker.Syncer }

func (stuck) Sync(context.Context, *corev1.Pod) (podworker.Outcome, error) {
	return podworker.Outcome{}, nil
}

func (stuck) Terminate(ctx context.Context, _ *corev1.Pod, _ podworker.End) error {
	<-ctx.Done()
	return ctx.Err()
}

// observed is a Kubelet whose events are seen.
func observed() (*Kubelet, func() []string) {
	recorder := record.NewFakeRecorder(100)
	runtime := odd{memcri.New(memcri.Config{})}
	k := &Kubelet{cfg: Config{Runtime: runtime, Images: runtime, NodeName: "n1", ImageGC: image.Policy{High: 85, Low: 80}}, recorder: recorder, log: slog.New(slog.DiscardHandler),
		stats: stats.New(stats.Config{Images: runtime, Logger: slog.New(slog.DiscardHandler)}), pool: podworker.New(podworker.Config{Syncer: stuck{}, Logger: slog.New(slog.DiscardHandler)})}
	return k, func() (all []string) {
		for {
			select {
			case one := <-recorder.Events:
				all = append(all, one)
			default:
				return all
			}
		}
	}
}

func TestEvents(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u"}}
	for name, c := range map[string]struct {
		do   func(*Kubelet)
		want []string
	}{
		"images on a file system without room": {func(k *Kubelet) {
			if !k.collectImages(t.Context(), false) || !k.collectImages(t.Context(), true) {
				t.Error("that failed")
			}
		}, []string{"Warning InvalidDiskCapacity invalid capacity 0 on image filesystem", "Warning InvalidDiskCapacity invalid capacity 0 on image filesystem",
			"Warning ImageGCFailed invalid capacity 0 on image filesystem"}},
		"images that are never to be collected": {func(k *Kubelet) {
			k.cfg.ImageGC.High = 100
			k.collectImages(t.Context(), true)
		}, nil},
		"a runtime that does not tell of a pod": {func(k *Kubelet) {
			if _, err := k.determine(t.Context(), pod); err == nil {
				t.Error("it told")
			}
		}, []string{"Warning FailedSync error determining status: list sandboxes of pod u: no sandboxes today"}},
		"dead containers that stay": {func(k *Kubelet) {
			k.uncollected(t.Context(), pod, nil)
			k.uncollected(t.Context(), pod, errors.New("busy"))
		}, []string{"Warning ContainerGCFailed busy"}},
	} {
		t.Run(name, func(t *testing.T) {
			k, events := observed()
			c.do(k)
			if got := events(); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A pod that does not end in time is told of.
func TestExceededGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, events := observed()
		k.mu.fails = map[types.UID]status.Reason{}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = k.pool.Run(ctx) }()
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u"}}
		k.pool.Update(pod)
		synctest.Wait()
		k.endPod(pod, "Evicted", "m", 20*time.Second, nil)
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if got := events(); len(got) != 0 {
			t.Errorf("too early: %q", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got, want := events(), []string{"Warning ExceededGracePeriod Container runtime did not kill the pod within specified grace period."}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		cancel()
	})
}

// What is left of pods that are gone is cleaned, and counted: a volume of an unknown
// driver stays.
func TestSweep(t *testing.T) {
	k, _ := observed()
	k.cfg.RootDir = t.TempDir()
	pods := filepath.Join(k.cfg.RootDir, "pods")
	k.meter = meter.New(meter.Gauges{})
	k.volumes = volume.NewManager(volume.ManagerConfig{PodsDir: pods, Logger: k.log})
	k.ranges = userns.New(pods, 10, 65536)
	for _, dir := range []string{"u1/plugins", "u2/volumes/unknown/v"} {
		if err := os.MkdirAll(filepath.Join(pods, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	k.sweepDirs(t.Context(), nil)
	left, err := os.ReadDir(pods)
	if err != nil || len(left) != 1 || left[0].Name() != "u2" {
		t.Errorf("left is %v, %v", left, err)
	}
	for want, gauge := range map[float64]prometheus.Gauge{2: k.meter.OrphanVolumes, 1: k.meter.OrphanVolumeErrors} {
		var got dto.Metric
		if err := gauge.Write(&got); err != nil || got.GetGauge().GetValue() != want {
			t.Errorf("got %v, %v, want %v", &got, err, want)
		}
	}
}
