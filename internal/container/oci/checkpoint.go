// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// criuTimeout bounds a checkpoint or its restoring: gigabytes of memory take a
// while to write.
const criuTimeout = time.Hour

// searchPath is where CRIU looks for what it calls.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ErrNoCRIU tells that the program is not installed.
var ErrNoCRIU = errors.New("criu is not installed")

// criuPath is a search path that begins with where CRIU is.
func criuPath() (string, error) {
	path, err := exec.LookPath("criu")
	if err != nil {
		return "", ErrNoCRIU
	}
	return filepath.Dir(path) + ":" + searchPath, nil
}

// HasCRIU says whether containers can be saved and restored here.
func HasCRIU() bool {
	_, err := criuPath()
	return err == nil
}

// Images are what CRIU saved of a container's processes.
type Images struct {
	// Dir holds them. Work receives CRIU's logs.
	Dir, Work string
}

// Checkpoint saves the processes of a container, which run on. Both directories
// of to must exist, to.Dir empty.
func (h *Helper) Checkpoint(ctx context.Context, root, id string, to Images) error {
	path, err := criuPath()
	if err != nil {
		return err
	}
	return explain(h.run(ctx, criuTimeout, "checkpoint", root, id, to.Dir, to.Work, path), filepath.Join(to.Work, "dump.log"))
}

// Restore makes a container of saved processes, which run from then on, and
// returns the pid of the first.
func (m *Monitor) Restore(ctx context.Context, c Container, from Images) (pid int, err error) {
	path, err := criuPath()
	if err != nil {
		return 0, err
	}
	pid, err = m.make(ctx, c, criuTimeout, "restore", c.Root, c.ID, c.Bundle, from.Dir, from.Work, path)
	return pid, explain(err, filepath.Join(from.Work, "restore.log"))
}

// maxReasons is how many of CRIU's errors are told; the first ones are the cause.
const maxReasons = 3

// explain adds to an error what CRIU's log says of it.
func explain(err error, log string) error {
	if err == nil {
		return nil
	}
	f, openErr := os.Open(log)
	if openErr != nil {
		return err // it did not come so far
	}
	defer f.Close()
	var reasons []string
	for lines := bufio.NewScanner(f); lines.Scan() && len(reasons) < maxReasons; {
		_, reason, ok := strings.Cut(lines.Text(), "Error (")
		_, reason, _ = strings.Cut(reason, "): ")
		// Without CAP_SYS_RESOURCE its own limits stay as they are, which does no harm.
		if ok && !strings.HasPrefix(reason, "rlimit: Can't setup") {
			reasons = append(reasons, reason)
		}
	}
	if len(reasons) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, strings.Join(reasons, "; "))
}
