// SPDX-License-Identifier: Apache-2.0

// Package reload follows configuration files while the API server runs:
// whoever is to be secure by a file wants its changes at once and a broken file
// never. The wiring starts one Follower a file; the last good state stays when a
// change cannot be applied, and metrics by upstream's names tell.
package reload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// again is when contents that could not be taken over are tried once more: what
// they name may have been away.
const again = time.Minute

// Interval is how often a file is looked at when nobody says otherwise.
const Interval = 2 * time.Second

// Follower applies the changes of one file.
type Follower struct {
	Path string
	// Every is how often the file is looked at; Interval when zero.
	Every time.Duration
	// Apply takes new contents over, or refuses them and keeps what was.
	Apply   func(ctx context.Context, data []byte) error
	Metrics *Metrics
	Logger  *slog.Logger
}

// Run follows the file until ctx ends; applied is what is in force already.
func (f *Follower) Run(ctx context.Context, applied []byte) error {
	every := f.Every
	if every == 0 {
		every = Interval
	}
	f.Metrics.loaded(applied)
	tick := time.NewTicker(every)
	defer tick.Stop()
	seen := applied
	var failed time.Time // when seen could not be taken over or the file not be read
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		data, err := os.ReadFile(f.Path)
		waiting := failed.IsZero() || time.Since(failed) < again
		if waiting && (err == nil && (bytes.Equal(data, seen) || len(data) == 0) || err != nil && !failed.IsZero()) {
			// An empty file is one that is being written.
			continue
		}
		if err == nil {
			seen = data
			err = f.Apply(ctx, data)
		}
		if ctx.Err() != nil {
			return nil
		}
		f.Metrics.reloaded(data, err)
		failed = time.Time{}
		if err != nil {
			failed = time.Now()
			f.Logger.Error("a changed configuration is not taken over", "file", f.Path, "err", err)
			continue
		}
		f.Logger.Info("took over a changed configuration", "file", f.Path)
	}
}

// Metrics count the reloads of one sort of configuration.
type Metrics struct {
	server string // hash of the server's name
	total  *prometheus.CounterVec
	last   *prometheus.GaugeVec
	info   *prometheus.GaugeVec
}

// NewMetrics returns metrics of a subsystem, such as
// "authentication_config_controller", about what, such as "authentication
// configuration".
func NewMetrics(subsystem, what, server string) *Metrics {
	name := func(n string) string { return "apiserver_" + subsystem + "_" + n }
	return &Metrics{
		server: hash([]byte(server)),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("automatic_reloads_total"),
			Help: "[BETA] Total number of automatic reloads of " + what + " split by status and apiserver identity."}, []string{"status", "apiserver_id_hash"}),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name("automatic_reload_last_timestamp_seconds"),
			Help: "[BETA] Timestamp of the last automatic reload of " + what + " split by status and apiserver identity."}, []string{"status", "apiserver_id_hash"}),
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name("last_config_info"),
			Help: "[ALPHA] Information about the last applied " + what + " with hash as label, split by apiserver identity."}, []string{"apiserver_id_hash", "hash"}),
	}
}

// Collectors are what a registry is to hold.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.total, m.last, m.info}
}

func hash(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func (m *Metrics) loaded(data []byte) {
	m.info.Reset()
	m.info.WithLabelValues(m.server, hash(data)).Set(1)
}

func (m *Metrics) reloaded(data []byte, err error) {
	status := "success"
	if err != nil {
		status = "failure"
	} else {
		m.loaded(data)
	}
	m.total.WithLabelValues(status, m.server).Inc()
	m.last.WithLabelValues(status, m.server).SetToCurrentTime()
}
