// SPDX-License-Identifier: Apache-2.0

package scheduler_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"kaji/internal/apiserver"
	"kaji/internal/client"
	"kaji/internal/client/remote"
	"kaji/internal/scheduler"
	"kaji/internal/scheduler/config"
	"kaji/internal/store/pebble"
	"kaji/kajitest"
)

// BenchmarkThroughAPI binds pods through the API, every binding and event a
// write. Pods are there before the scheduler starts. "direct" is in one process
// with the API server, as "kaji up" runs it, "stored" the same with the embedded
// store on disk, each write synced; "https" is as if apart, but the processor
// time is of both.
func BenchmarkThroughAPI(b *testing.B) {
	for _, way := range []string{"direct", "stored", "https"} {
		for _, nodes := range []int{1000, 5000, 15000, 50000} {
			for _, shape := range scheduler.BenchShapes() {
				b.Run(fmt.Sprintf("%s/nodes=%d/%s", way, nodes, shape.Name), func(b *testing.B) { throughAPI(b, way, nodes, shape.Change) })
			}
		}
	}
}

func throughAPI(b *testing.B, way string, nodes int, change func(int, *corev1.Pod)) {
	cluster := kajitest.Start(b, kajitest.WithServer(func(c *apiserver.Config) {
		if way != "stored" {
			return
		}
		disk, err := pebble.Open(pebble.Config{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = disk.Close() })
		c.Store = disk
	}))
	api := cluster.Client()
	for i := range nodes {
		if _, err := client.For[*corev1.Node](api).Create(b.Context(), scheduler.BenchNode(i)); err != nil {
			b.Fatal(err)
		}
	}
	pods := client.For[*corev1.Pod](api)
	for i := range b.N {
		p := scheduler.BenchPod(i, change)
		p.UID = ""
		if _, err := pods.Create(b.Context(), p); err != nil {
			b.Fatal(err)
		}
	}
	bound := make(chan struct{}, b.N)
	pods.AddHandler(client.Handler[*corev1.Pod]{Update: func(old, p *corev1.Pod) {
		if old.Spec.NodeName == "" && p.Spec.NodeName != "" {
			bound <- struct{}{}
		}
	}})
	if !cache.WaitForCacheSync(b.Context().Done(), pods.HasSynced) {
		b.Fatal("no first list")
	}
	own := api
	if way == "https" {
		apart, err := remote.New(cluster.RESTConfig())
		if err != nil {
			b.Fatal(err)
		}
		own = apart
	}
	cfg := config.Default()
	cfg.LeaderElection.LeaderElect = ptr.To(false)
	s, err := scheduler.New(scheduler.Config{Client: own, Configuration: cfg, Seed: 1, Hostname: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	b.ReportAllocs()
	before := cpu(b)
	b.ResetTimer()
	go func() { done <- s.Run(ctx) }()
	limit := time.After(10 * time.Minute)
	for range b.N {
		select {
		case <-bound:
		case <-limit:
			b.Fatal("not all pods were bound")
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/pod")
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

// cpu is what the process has used so far.
func cpu(b *testing.B) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
