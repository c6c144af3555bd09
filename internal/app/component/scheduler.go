// SPDX-License-Identifier: Apache-2.0

package component

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"kaji/internal/apiserver/metrics"
	"kaji/internal/client/remote"
	"kaji/internal/featuregate"
	"kaji/internal/lifecycle"
	"kaji/internal/scheduler"
	"kaji/internal/scheduler/flags"
)

// Scheduler runs the scheduler alone until ctx ends.
func Scheduler(ctx context.Context, o *flags.Options, log *slog.Logger) error {
	gates, err := featuregate.Parse(o.FeatureGates)
	if err != nil {
		return err
	}
	var file []byte
	if o.ConfigFile != "" {
		if file, err = os.ReadFile(o.ConfigFile); err != nil {
			return err
		}
	}
	configuration, err := o.Configuration(file)
	if err != nil {
		return err
	}
	if o.WriteConfigTo != "" {
		text, err := yaml.Marshal(configuration)
		if err != nil {
			return err
		}
		return os.WriteFile(o.WriteConfigTo, text, 0o600)
	}
	config, err := restConfig(configuration.ClientConnection.Kubeconfig, o.Master, "kube-scheduler")
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registerProcess(registry)
	registry.MustRegister(gates)
	trust := metrics.NewTrust()
	registry.MustRegister(trust.Collectors()...)
	config.Wrap(newRESTMetrics(registry).wrap)
	api, err := remote.New(config)
	if err != nil {
		return err
	}
	served, err := expose(&o.Metrics, registry)
	if err != nil {
		return err
	}
	s, err := scheduler.New(scheduler.Config{Served: served, Client: api, Configuration: configuration, Logger: log, Hostname: hostname(), MaxUnschedulable: o.MaxInUnschedulablePods, Metrics: registry, PodGroups: gates.Enabled("GenericWorkload")})
	if err != nil {
		return fmt.Errorf("scheduler: %w", err)
	}
	w := &web{name: "kube-scheduler", serving: &o.Serving, trust: &o.Authentication, counts: trust, handler: s.Handler(), log: log}
	if err := w.listen(); err != nil {
		return err
	}
	log.Info("scheduling", "server", config.Host, "leaderElection", ptr.Deref(configuration.LeaderElection.LeaderElect, false))
	group := lifecycle.New(ctx, log)
	group.Go("web", w.run)
	group.Go("scheduler", s.Run)
	err = group.Wait()
	api.Wait()
	return err
}
