// SPDX-License-Identifier: Apache-2.0

package container

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// message stores a protobuf message as its JSON form inside a record.
type message[T proto.Message] struct{ value T }

func (m message[T]) MarshalJSON() ([]byte, error) { return protojson.Marshal(m.value) }

func (m *message[T]) UnmarshalJSON(raw []byte) error {
	m.value = m.value.ProtoReflect().New().Interface().(T)
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, m.value)
}

// sandboxRecord is what survives of a sandbox on disk. A record is immutable:
// a change replaces it.
type sandboxRecord struct {
	ID      string                                `json:"id"`
	Config  message[*runtimeapi.PodSandboxConfig] `json:"config"`
	Handler string                                `json:"handler,omitempty"`
	Created time.Time                             `json:"created"`
	// Ready is false until the sandbox runs, and again when it has stopped.
	Ready bool `json:"ready"`
	// Complete is false while RunPodSandbox has not finished: what a restart
	// finds so is cleaned away.
	Complete bool `json:"complete"`
	// Networked tells that the pod network knows the sandbox.
	Networked  bool     `json:"networked,omitempty"`
	MonitorPid process  `json:"monitor"`
	PausePid   process  `json:"pause"`
	IPs        []string `json:"ips,omitempty"`
	Hostname   string   `json:"hostname"`
	Cgroup     string   `json:"cgroup"`
}

// containerRecord is what survives of a container on disk, immutable too.
type containerRecord struct {
	ID      string                               `json:"id"`
	Sandbox string                               `json:"sandbox"`
	Config  message[*runtimeapi.ContainerConfig] `json:"config"`
	ImageID string                               `json:"imageID"`
	// ImageRef is a digest reference of the image, or its id.
	ImageRef string   `json:"imageRef"`
	Layers   []string `json:"layers"`
	// VolumeLayers are those of its image volumes.
	VolumeLayers []string                           `json:"volumeLayers,omitempty"`
	State        runtimeapi.ContainerState          `json:"state"`
	Created      time.Time                          `json:"created"`
	Started      time.Time                          `json:"started,omitzero"`
	Finished     time.Time                          `json:"finished,omitzero"`
	Pid          process                            `json:"pid"`
	ExitCode     int32                              `json:"exitCode,omitempty"`
	Reason       string                             `json:"reason,omitempty"`
	Message      string                             `json:"message,omitempty"`
	LogPath      string                             `json:"logPath,omitempty"`
	Cgroup       string                             `json:"cgroup"`
	StopSignal   string                             `json:"stopSignal,omitempty"`
	User         message[*runtimeapi.ContainerUser] `json:"user"`
	HasHooks     bool                               `json:"hasHooks,omitempty"`
	// OOMKills are those of the pod's slice that this container did not have.
	OOMKills uint64 `json:"oomKills,omitempty"`
	// Restore tells that its start is the end of a checkpoint.
	Restore bool `json:"restore,omitempty"`
	// Complete is false while CreateContainer has not finished.
	Complete bool `json:"complete"`
}

// died says that the container's process is gone although it is recorded as
// running. One that was not started yet has no process, and has not died.
func (rec *containerRecord) died() bool {
	return rec.State == runtimeapi.ContainerState_CONTAINER_RUNNING && !rec.Pid.alive()
}

// process is a process that cannot be taken for a later one of the same number.
type process struct {
	Pid   int    `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"` // in clock ticks since boot
}

func newProcess(pid int) process { return process{pid, startTime(pid)} }

// alive is true while the very process exists and is no zombie.
func (p process) alive() bool { return p.Pid > 0 && startTime(p.Pid) == p.Start && p.Start != 0 }

func writeRecord(path string, record any) error {
	raw, err := json.Marshal(record)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func readRecord(path string, record any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, record); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// newID is 64 random hexadecimal digits, as every runtime's ids.
func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// logPath joins the directory of a pod's logs and a container's file.
func logPath(sandbox *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) string {
	if sandbox.GetLogDirectory() == "" || config.GetLogPath() == "" {
		return ""
	}
	return filepath.Join(sandbox.GetLogDirectory(), config.GetLogPath())
}
