// SPDX-License-Identifier: Apache-2.0

// Package logging makes the process's logger: structured lines on stderr,
// quieter or more talkative by -v, the libraries' klog included.
package logging

import (
	"context"
	"io"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// Options are the logging flags.
type Options struct {
	Verbosity int
	JSON      bool
	// Journal is the unit under which systemd's journal has the log, too; empty
	// for not.
	Journal string
}

// AddFlags adds -v and --log-json.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.IntVarP(&o.Verbosity, "v", "v", o.Verbosity, "log verbosity: 0 what operators need, 4 details, 6 every request")
	fs.BoolVar(&o.JSON, "log-json", o.JSON, "log JSON lines")
	fs.StringVar(&o.Journal, "log-journal", o.Journal, "log to systemd's journal, too, where journalctl -u finds it under this unit, besides the process's own")
}

// New returns the logger and makes it slog's and klog's.
func (o *Options) New(w io.Writer) *slog.Logger {
	level := slog.LevelInfo
	if o.Verbosity >= 4 {
		level = slog.LevelDebug
	}
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if o.JSON {
		handler = slog.NewJSONHandler(w, options)
	}
	var missing error
	if o.Journal != "" {
		var second slog.Handler
		if second, missing = newJournal(journalSocket, o.Journal, level); missing == nil {
			handler = both{handler, second}
		}
	}
	log := slog.New(handler)
	if missing != nil {
		log.Warn("systemd's journal does not get the log", "err", missing)
	}
	slog.SetDefault(log)
	// Libraries' informational lines are for those who debug them.
	if o.Verbosity < 4 {
		klog.SetLoggerWithOptions(logr.FromSlogHandler(quiet{handler}), klog.ContextualLogger(true))
	} else {
		klog.SetLoggerWithOptions(logr.FromSlogHandler(handler), klog.ContextualLogger(true))
	}
	return log
}

// quiet lets only warnings and errors of libraries through.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.Handler.Enabled(ctx, level)
}
