// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gopkg.in/natefinch/lumberjack.v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	auditapi "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	upstream "k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	"k8s.io/apiserver/plugin/pkg/audit/truncate"
	auditwebhook "k8s.io/apiserver/plugin/pkg/audit/webhook"

	"kaji/internal/apiserver"
	"kaji/internal/apiserver/audit"
	"kaji/internal/apiserver/flags"
)

// newAudit builds the audit station the flags ask for: nil without a policy or
// without a place for the events.
func newAudit(o *flags.Audit) (*audit.Audit, error) {
	var rules *auditapi.Policy
	if o.PolicyFile != "" {
		data, err := os.ReadFile(o.PolicyFile)
		if err != nil {
			return nil, fmt.Errorf("loading audit policy file: failed to read file path %q: %w", o.PolicyFile, err)
		}
		if rules, err = audit.LoadPolicy(data); err != nil {
			return nil, fmt.Errorf("loading audit policy file: %w: from file %v", err, o.PolicyFile)
		}
	}
	var backends []upstream.Backend
	if o.LogPath != "" {
		out, err := auditFile(o)
		if err != nil {
			return nil, err
		}
		backends = append(backends, handing(audit.Log(out, o.LogFormat == "legacy"), &o.Log, false))
	}
	if o.WebhookConfigFile != "" {
		hook, err := auditwebhook.NewBackend(o.WebhookConfigFile, auditv1.SchemeGroupVersion, webhook.DefaultRetryBackoffWithInitialDelay(o.WebhookInitialBackoff), nil)
		if err != nil {
			return nil, fmt.Errorf("initializing audit webhook: %w", err)
		}
		backends = append(backends, handing(hook, &o.Webhook, true))
	}
	if rules == nil || len(backends) == 0 {
		return nil, nil
	}
	return audit.New(audit.Config{Policy: rules, Backend: upstream.Union(backends...), LongRunning: apiserver.LongRunning}), nil
}

// handing puts the mode and the limits of a back end before it.
func handing(b upstream.Backend, s *flags.AuditSink, concurrently bool) upstream.Backend {
	switch s.Mode {
	case "batch":
		b = buffered.NewBackend(b, buffered.BatchConfig{
			BufferSize: s.BatchBuffer, MaxBatchSize: s.BatchMax, MaxBatchWait: s.BatchMaxWait,
			ThrottleEnable: s.Throttle, ThrottleQPS: s.ThrottleQPS, ThrottleBurst: s.ThrottleBurst, AsyncDelegate: concurrently,
		})
	case "blocking":
		b = audit.Lenient(b)
	}
	if s.Truncate {
		gv, _ := schema.ParseGroupVersion(s.Version) // was checked with the flags
		b = truncate.NewBackend(b, truncate.Config{MaxBatchSize: s.MaxBatchSize, MaxEventSize: s.MaxEventSize}, gv)
	}
	return b
}

// auditFile opens the log. It must be writable now: a mistake in its path must
// not show at the first request.
func auditFile(o *flags.Audit) (io.Writer, error) {
	if o.LogPath == "-" {
		return os.Stdout, nil
	}
	if err := os.MkdirAll(filepath.Dir(o.LogPath), 0o700); err != nil {
		return nil, fmt.Errorf("--audit-log-path: %w", err)
	}
	f, err := os.OpenFile(o.LogPath, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--audit-log-path: %w", err)
	}
	if o.LogMaxMB == 0 {
		return f, nil
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("--audit-log-path: %w", err)
	}
	return &lumberjack.Logger{Filename: o.LogPath, MaxAge: o.LogMaxAge, MaxBackups: o.LogMaxBackup, MaxSize: o.LogMaxMB, Compress: o.LogCompress}, nil
}
