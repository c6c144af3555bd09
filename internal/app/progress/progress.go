// SPDX-License-Identifier: Apache-2.0

// Package progress tells a user what a command is waiting for: one line that
// changes on a terminal, plain lines elsewhere.
package progress

import (
	"fmt"
	"io"
	"os"
	"time"
)

// Display prints steps. It is used by one goroutine.
type Display struct {
	w     io.Writer
	live  bool
	start time.Time
	step  string
}

// New returns a display on w.
func New(w io.Writer) *Display {
	d := &Display{w: w, start: time.Now()}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		d.live = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return d
}

// Step says what is being waited for now.
func (d *Display) Step(format string, args ...any) {
	step := fmt.Sprintf(format, args...)
	if step == d.step {
		return
	}
	d.step = step
	if d.live {
		fmt.Fprintf(d.w, "\r\033[K … %s", step)
	}
}

// Done says what has been reached, with the time since the start.
func (d *Display) Done(format string, args ...any) {
	if d.live {
		fmt.Fprint(d.w, "\r\033[K")
	}
	d.step = ""
	fmt.Fprintf(d.w, " ✓ %-46s %6.2f s\n", fmt.Sprintf(format, args...), time.Since(d.start).Seconds())
}

// Clear removes the changing line, before an error is printed.
func (d *Display) Clear() {
	if d.live {
		fmt.Fprint(d.w, "\r\033[K")
	}
}
