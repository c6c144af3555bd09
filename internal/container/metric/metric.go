// SPDX-License-Identifier: Apache-2.0

// Package metric turns measurements of containers and pods into the metrics of
// the Container Runtime Interface, under the names and labels of cAdvisor that
// dashboards ask for. Package container measures and calls it.
package metric

import (
	"time"

	"github.com/opencontainers/cgroups"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Names say whose metrics they are; a pod's own leave Container and Image empty.
type Names struct {
	Container, ID, Image, Name, Namespace, Pod string
}

func (n Names) values(more []string) []string {
	return append([]string{n.Container, n.ID, n.Image, n.Name, n.Namespace, n.Pod}, more...)
}

// base are the label keys of every metric, in the order of Names.
var base = [...]string{"container", "id", "image", "name", "namespace", "pod"}

// Container is what was measured of a running container.
type Container struct {
	Names
	At, Started time.Time
	Cgroup      *cgroups.Stats
	Limits      *runtimeapi.LinuxContainerResources
	OOMKills    uint64
	Processes   Processes
	Disk        Disk
}

// Processes sums up the processes of a container.
type Processes struct {
	Count, Threads, Files, Sockets uint64
	// MaxOpenFiles is the first process's soft limit.
	MaxOpenFiles uint64
}

// Disk is the use of a container's own layer, on the file system that holds it.
type Disk struct {
	Device                         string
	Used, Size, Inodes, FreeInodes uint64
}

// Interface holds the counters of a network interface.
type Interface struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// point is one value with the labels that its kind adds.
type point struct {
	value  uint64
	labels []string
}

func one(v uint64) []point { return []point{{value: v}} }

// kind describes the metrics of one name, about T.
type kind[T any] struct {
	name, help string
	of         runtimeapi.MetricType
	labels     []string
	points     func(*T) []point
}

const (
	counter = runtimeapi.MetricType_COUNTER
	gauge   = runtimeapi.MetricType_GAUGE
)

func describe[T any](kinds []kind[T]) (list []*runtimeapi.MetricDescriptor) {
	for _, k := range kinds {
		list = append(list, &runtimeapi.MetricDescriptor{Name: k.name, Help: k.help, LabelKeys: append(base[:len(base):len(base)], k.labels...)})
	}
	return list
}

func collect[T any](kinds []kind[T], of *T, names Names) (list []*runtimeapi.Metric) {
	for _, k := range kinds {
		for _, p := range k.points(of) {
			list = append(list, &runtimeapi.Metric{
				Name: k.name, MetricType: k.of, LabelValues: names.values(p.labels), Value: &runtimeapi.UInt64Value{Value: p.value},
			})
		}
	}
	return list
}

// Descriptors describes all metrics.
func Descriptors() []*runtimeapi.MetricDescriptor {
	return append(describe(containerKinds()), describe(interfaceKinds())...)
}

// OfContainer lists the metrics of a container.
func OfContainer(c *Container) *runtimeapi.ContainerMetrics {
	return &runtimeapi.ContainerMetrics{ContainerId: c.ID, Metrics: collect(containerKinds(), c, c.Names)}
}

// OfPod lists the metrics of a pod's own: those of its network.
func OfPod(names Names, interfaces []Interface) (list []*runtimeapi.Metric) {
	for _, i := range interfaces {
		list = append(list, collect(interfaceKinds(), &i, names)...)
	}
	return list
}

func interfaceKinds() []kind[Interface] {
	number := func(name, help string, value func(*Interface) uint64) kind[Interface] {
		return kind[Interface]{"container_network_" + name, help, counter, []string{"interface"},
			func(i *Interface) []point { return []point{{value(i), []string{i.Name}}} }}
	}
	return []kind[Interface]{
		number("receive_bytes_total", "Cumulative count of bytes received", func(i *Interface) uint64 { return i.RxBytes }),
		number("receive_packets_total", "Cumulative count of packets received", func(i *Interface) uint64 { return i.RxPackets }),
		number("receive_errors_total", "Cumulative count of errors encountered while receiving", func(i *Interface) uint64 { return i.RxErrors }),
		number("receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", func(i *Interface) uint64 { return i.RxDropped }),
		number("transmit_bytes_total", "Cumulative count of bytes transmitted", func(i *Interface) uint64 { return i.TxBytes }),
		number("transmit_packets_total", "Cumulative count of packets transmitted", func(i *Interface) uint64 { return i.TxPackets }),
		number("transmit_errors_total", "Cumulative count of errors encountered while transmitting", func(i *Interface) uint64 { return i.TxErrors }),
		number("transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", func(i *Interface) uint64 { return i.TxDropped }),
	}
}
