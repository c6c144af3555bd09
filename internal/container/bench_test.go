// SPDX-License-Identifier: Apache-2.0

package container

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	scratch "github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// startPod runs a pod with one container, from RunPodSandbox to StartContainer.
func startPod(b *testing.B, r *Runtime, image, name string) time.Duration {
	begun := time.Now()
	sandbox, pod := runSandbox(b, r, name)
	startBox(b, r, createBox(b, r, sandbox, pod, image, "sleep"))
	return time.Since(begun)
}

// cpuTime is what this process and its ended children have spent; a pod's
// removal ends its last one.
func cpuTime(b *testing.B) (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var use unix.Rusage
		if err := unix.Getrusage(who, &use); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	return sum
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkPod starts pods alone and many at a time.
func BenchmarkPod(b *testing.B) {
	for _, parallel := range []int{1, 50} {
		b.Run(fmt.Sprintf("at-once-%d", parallel), func(b *testing.B) {
			r := open(b, directory(b))
			run(b, r)
			image := pull(b, r)
			var mu sync.Mutex
			var took []time.Duration
			before := cpuTime(b)
			for b.Loop() {
				var pods sync.WaitGroup
				for i := range parallel {
					pods.Go(func() {
						d := startPod(b, r, image, fmt.Sprint("bench-", i))
						mu.Lock()
						took = append(took, d)
						mu.Unlock()
					})
				}
				pods.Wait()
				b.StopTimer()
				removeAll(b, r)
				b.StartTimer()
			}
			slices.Sort(took)
			b.ReportMetric(milliseconds(took[len(took)/2]), "p50-ms")
			b.ReportMetric(milliseconds(took[len(took)*99/100]), "p99-ms")
			b.ReportMetric(milliseconds(cpuTime(b)-before)/float64(len(took)), "cpu-ms/pod")
		})
	}
}

// proportional is the memory of a process, what it shares counted in parts.
func proportional(pid int) (kilobytes int) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			kilobytes, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		}
	}
	return kilobytes
}

// BenchmarkManyPods measures what hundreds of pods cost: memory beyond the
// workload, and a start of the runtime that finds them again.
func BenchmarkManyPods(b *testing.B) {
	const pods = 500
	dir := directory(b)
	r := open(b, dir)
	stop := run(b, r)
	image := pull(b, r)
	before := proportional(os.Getpid())
	for i := range pods {
		startPod(b, r, image, fmt.Sprint("many-", i))
	}
	beside, own := 0, proportional(os.Getpid())-before
	for _, s := range r.sandboxes {
		rec := s.record.Load()
		beside += proportional(rec.MonitorPid.Pid) + proportional(rec.PausePid.Pid)
	}
	stop()
	var found time.Duration
	for b.Loop() {
		begun := time.Now()
		r = open(b, dir)
		found += time.Since(begun)
		run(b, r)()
	}
	b.ReportMetric(float64(beside)/pods, "monitor-KB/pod")
	b.ReportMetric(float64(own)/pods, "runtime-KB/pod")
	b.ReportMetric(milliseconds(found)/float64(b.N), "start-ms")
	r = open(b, dir)
	defer run(b, r)()
	removeAll(b, r)
}

// BenchmarkPull brings an image of incompressible layers from a registry beside.
func BenchmarkPull(b *testing.B) {
	const layers, size = 4, 64 << 20
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/bench/image:v1")
	if err != nil {
		b.Fatal(err)
	}
	img := scratch.Image
	random := rand.NewChaCha8([32]byte{})
	for i := range layers {
		content := make([]byte, size)
		_, _ = random.Read(content) // never fails
		archive := tarOf(b, fmt.Sprint("file", i), content)
		if img, err = mutate.AppendLayers(img, static.NewLayer(archive, types.OCIUncompressedLayer)); err != nil {
			b.Fatal(err)
		}
	}
	if err := remote.Write(ref, img); err != nil {
		b.Fatal(err)
	}
	r := open(b, directory(b))
	run(b, r)
	spec := &runtimeapi.ImageSpec{Image: ref.String()}
	b.SetBytes(layers * size)
	for b.Loop() {
		if _, err := r.PullImage(b.Context(), &runtimeapi.PullImageRequest{Image: spec}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if _, err := r.RemoveImage(b.Context(), &runtimeapi.RemoveImageRequest{Image: spec}); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func tarOf(b *testing.B, file string, content []byte) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(content))}); err != nil {
		b.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}
