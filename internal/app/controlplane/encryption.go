// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"os"

	machine "kaji/internal/apiserver"
	"kaji/internal/apiserver/encryption"
	"kaji/internal/apiserver/reload"
)

// encrypt has values encrypted at rest, where the flags name a configuration.
func (p *Plane) encrypt(ctx context.Context, cfg *machine.Config) error {
	o := &p.Options.Store
	if o.EncryptionProviderConfig == "" {
		return nil
	}
	data, err := os.ReadFile(o.EncryptionProviderConfig)
	if err != nil {
		return fmt.Errorf("--encryption-provider-config: %w", err)
	}
	if p.sealer, err = encryption.New(ctx, data, o.EncryptionProviderConfigAutomaticReload, serverID()); err != nil {
		return fmt.Errorf("--encryption-provider-config %s: %w", o.EncryptionProviderConfig, err)
	}
	cfg.Sealer = p.sealer
	if p.sealer.HasPlugins() {
		cfg.Checks = append(cfg.Checks, machine.Check{Name: "kms-providers", Check: func(r *http.Request) error { return p.sealer.Check(r.Context()) }})
	}
	if o.EncryptionProviderConfigAutomaticReload {
		metrics := reload.NewMetrics("encryption_config_controller", "encryption configuration", serverID())
		cfg.Collectors = append(cfg.Collectors, metrics.Collectors()...)
		p.trust.follow(data, &reload.Follower{Path: o.EncryptionProviderConfig, Metrics: metrics, Logger: p.log, Apply: p.sealer.Use})
	}
	return nil
}

// closeSealer ends what encrypt started.
func (p *Plane) closeSealer() {
	if p.sealer != nil {
		p.sealer.Close()
	}
}
