// SPDX-License-Identifier: Apache-2.0

package flags

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Modes and formats of audit back ends.
var (
	auditModes   = []string{"batch", "blocking", "blocking-strict"}
	auditFormats = []string{"legacy", "json"}
)

func (o *Options) addAudit(fs *pflag.FlagSet) {
	a := &o.Audit
	fs.StringVar(&a.PolicyFile, "audit-policy-file", "", "File that says what is recorded.")
	fs.StringVar(&a.LogPath, "audit-log-path", "", "File to write audit events to; - means standard output.")
	fs.StringVar(&a.LogFormat, "audit-log-format", "json", "Format of the log: json or legacy.")
	fs.IntVar(&a.LogMaxAge, "audit-log-maxage", 366, "Days to keep old logs; zero keeps them for ever.")
	fs.IntVar(&a.LogMaxBackup, "audit-log-maxbackup", 100, "Number of old logs to keep; zero keeps all.")
	fs.IntVar(&a.LogMaxMB, "audit-log-maxsize", 100, "Megabytes of a log before it is rotated; zero never rotates.")
	fs.BoolVar(&a.LogCompress, "audit-log-compress", false, "Compress old logs.")
	fs.StringVar(&a.WebhookConfigFile, "audit-webhook-config-file", "", "Kubeconfig of a webhook that audit events are sent to.")
	fs.DurationVar(&a.WebhookInitialBackoff, "audit-webhook-initial-backoff", 10*time.Second, "How long to wait before the first retry.")
	fs.DurationVar(&a.WebhookInitialBackoff, "audit-webhook-batch-initial-backoff", 10*time.Second, "How long to wait before the first retry.")
	_ = fs.MarkDeprecated("audit-webhook-batch-initial-backoff", "Deprecated, use --audit-webhook-initial-backoff instead.") // fails for unknown flags only
	a.Log = AuditSink{Mode: "blocking", BatchMax: 1}
	a.Webhook = AuditSink{Mode: "batch", BatchMax: 400, BatchMaxWait: 30 * time.Second, Throttle: true, ThrottleQPS: 10, ThrottleBurst: 15}
	a.Log.add(fs, "log")
	a.Webhook.add(fs, "webhook")
}

func (s *AuditSink) add(fs *pflag.FlagSet, name string) {
	prefix := "audit-" + name
	fs.StringVar(&s.Mode, prefix+"-mode", s.Mode, "When events are handed over: batch, blocking or blocking-strict, which refuses requests that cannot be recorded.")
	fs.StringVar(&s.Version, prefix+"-version", "audit.k8s.io/v1", "API version of the events.")
	fs.IntVar(&s.BatchBuffer, prefix+"-batch-buffer-size", 10000, "Events held before they are handed over. Only in batch mode, as the other batch flags.")
	fs.IntVar(&s.BatchMax, prefix+"-batch-max-size", s.BatchMax, "Most events in a batch.")
	fs.DurationVar(&s.BatchMaxWait, prefix+"-batch-max-wait", s.BatchMaxWait, "How long to wait for a batch to fill.")
	fs.BoolVar(&s.Throttle, prefix+"-batch-throttle-enable", s.Throttle, "Bound the rate of batches.")
	fs.Float32Var(&s.ThrottleQPS, prefix+"-batch-throttle-qps", s.ThrottleQPS, "Batches a second, on average.")
	fs.IntVar(&s.ThrottleBurst, prefix+"-batch-throttle-burst", s.ThrottleBurst, "Batches that may be sent at once.")
	fs.BoolVar(&s.Truncate, prefix+"-truncate-enabled", false, "Cut events and batches that are too large.")
	fs.Int64Var(&s.MaxBatchSize, prefix+"-truncate-max-batch-size", 10<<20, "Bytes of a batch before it is split.")
	fs.Int64Var(&s.MaxEventSize, prefix+"-truncate-max-event-size", 100<<10, "Bytes of an event before its bodies are left out.")
}

func (a *Audit) validate() []error {
	var errs []error
	if a.LogPath != "" {
		errs = append(errs, a.Log.validate("log")...)
		if !slices.Contains(auditFormats, a.LogFormat) {
			errs = append(errs, fmt.Errorf("invalid audit log format %s, allowed formats are %q", a.LogFormat, strings.Join(auditFormats, ",")))
		}
		for _, n := range []struct {
			flag  string
			value int
		}{{"maxage", a.LogMaxAge}, {"maxbackup", a.LogMaxBackup}, {"maxsize", a.LogMaxMB}} {
			if n.value < 0 {
				errs = append(errs, fmt.Errorf("--audit-log-%s %v can't be a negative number", n.flag, n.value))
			}
		}
	}
	if a.WebhookConfigFile != "" {
		errs = append(errs, a.Webhook.validate("webhook")...)
	}
	return errs
}

func (s *AuditSink) validate(name string) []error {
	var errs []error
	if err := s.validateBatch(name); err != nil {
		errs = append(errs, err)
	}
	if s.MaxEventSize <= 0 {
		errs = append(errs, fmt.Errorf("invalid audit truncate %s max event size %v, must be a positive number", name, s.MaxEventSize))
	} else if s.MaxBatchSize < s.MaxEventSize {
		errs = append(errs, fmt.Errorf("invalid audit truncate %s max batch size %v, must be greater than max event size (%v)", name, s.MaxBatchSize, s.MaxEventSize))
	}
	if s.Version != "audit.k8s.io/v1" {
		errs = append(errs, fmt.Errorf("invalid group version, allowed versions are %q", []string{"audit.k8s.io/v1"}))
	}
	return errs
}

func (s *AuditSink) validateBatch(name string) error {
	switch {
	case !slices.Contains(auditModes, s.Mode):
		return fmt.Errorf("invalid audit %s mode %s, allowed modes are %q", name, s.Mode, strings.Join(auditModes, ","))
	case s.Mode != "batch":
	case s.BatchBuffer <= 0:
		return fmt.Errorf("invalid audit batch %s buffer size %v, must be a positive number", name, s.BatchBuffer)
	case s.BatchMax <= 0:
		return fmt.Errorf("invalid audit batch %s max batch size %v, must be a positive number", name, s.BatchMax)
	case s.Throttle && s.ThrottleQPS <= 0:
		return fmt.Errorf("invalid audit batch %s throttle QPS %v, must be a positive number", name, s.ThrottleQPS)
	case s.Throttle && s.ThrottleBurst <= 0:
		return fmt.Errorf("invalid audit batch %s throttle burst %v, must be a positive number", name, s.ThrottleBurst)
	}
	return nil
}
