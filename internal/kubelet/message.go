// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"fmt"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/actual"
	"kaji/internal/kubelet/logs"
)

// Bounds of termination messages, as upstream has them.
const (
	maxMessage         = 4096
	maxMessageFromLogs = 2048
	maxMessageLines    = 80
)

// terminationMessage reads what a container left as its last words: a file,
// or the end of its log where it asked for that and failed.
func terminationMessage(c *actual.Container) string {
	message := ""
	for _, m := range c.Mounts {
		if c.TerminationMessagePath == "" || m.ContainerPath != c.TerminationMessagePath {
			continue
		}
		b, err := tail(m.HostPath, maxMessage)
		if err != nil && !os.IsNotExist(err) {
			return fmt.Sprintf("Error on reading termination log %s: %v", m.HostPath, err)
		}
		message = string(b)
	}
	if message == "" && c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError && c.ExitCode != 0 && c.Reason != "ContainerCannotRun" {
		b, err := logs.Tail(c.LogPath, maxMessageLines, maxMessageFromLogs)
		if err != nil {
			return fmt.Sprintf("Error on reading termination message from logs: %v", err)
		}
		message = string(b)
	}
	return message
}

// tail reads the last n bytes of a file.
func tail(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	if _, err := f.Seek(max(info.Size()-n, 0), io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, n))
}
