// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/container/image"
	"kaji/internal/container/oci"
)

// adopt finds the sandboxes and containers of an earlier process: what runs is
// followed, what has ended meanwhile is recorded, what is half made is removed.
func (r *Runtime) adopt() error {
	ids, err := names(filepath.Join(r.cfg.Root, "sandboxes"))
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := r.adoptSandbox(id); err != nil {
			r.log.Warn("a sandbox of an earlier run cannot be kept", "sandbox", id, "err", err)
		}
	}
	if ids, err = names(filepath.Join(r.cfg.Root, "containers")); err != nil {
		return err
	}
	for _, id := range ids {
		if err := r.adoptContainer(id); err != nil {
			r.log.Warn("a container of an earlier run cannot be kept", "container", id, "err", err)
		}
	}
	if err := r.removeStrays(); err != nil {
		return err
	}
	for _, s := range r.sandboxes {
		r.follow(s)
	}
	return r.images.Sweep()
}

func names(dir string) (list []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list, err
}

func (r *Runtime) adoptSandbox(id string) error {
	rec, s := new(sandboxRecord), new(sandbox)
	if err := readRecord(filepath.Join(r.sandboxRoot(id), "record.json"), rec); err != nil {
		return errors.Join(err, os.RemoveAll(r.sandboxRoot(id)))
	}
	s.record.Store(rec)
	m, err := r.helper.DialMonitor(r.sandboxState(id))
	if err == nil {
		m.Pid, m.PausePid = rec.MonitorPid.Pid, rec.PausePid.Pid
		s.connect(m)
	}
	if !rec.Complete {
		return r.undoSandbox(context.Background(), s)
	}
	r.sandboxes[id] = s
	return nil
}

func (r *Runtime) adoptContainer(id string) error {
	rec := new(containerRecord)
	if err := readRecord(filepath.Join(r.containerRoot(id), "record.json"), rec); err != nil {
		return errors.Join(err, os.RemoveAll(r.containerRoot(id)))
	}
	c := &container{ended: make(chan struct{}), sandbox: r.sandboxes[rec.Sandbox]}
	c.record.Store(rec)
	if !rec.Complete || c.sandbox == nil {
		return r.deleteContainer(context.Background(), c)
	}
	c.release = r.images.Hold(slices.Concat(rec.Layers, rec.VolumeLayers))
	r.containers[id] = c
	if err := r.thaw(rec); err != nil {
		r.log.Warn("ending a checkpoint that was being made", "container", id, "err", err)
	}
	switch rec.State {
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		c.markEnded()
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		// It may have been on its way to run: its init is dropped, and it can be
		// started anew. A monitor that answers has ended what was making it.
		if m, err := c.sandbox.connection(); err == nil {
			_ = m.Forget(id)
		}
		if err := r.cgroups.Remove(rec.Cgroup); err != nil {
			return err
		}
		rootfs := filepath.Join(r.containerState(id), "rootfs")
		return errors.Join(os.RemoveAll(filepath.Join(r.ociRoot(), id)), image.Unmount(rootfs),
			os.RemoveAll(filepath.Join(r.containerRoot(id), "work")), r.mountRootfs(c, rootfs))
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		// Killed between the record and the start of its program.
		if _, err := os.Stat(filepath.Join(r.ociRoot(), id, "exec.fifo")); err == nil && rec.Pid.alive() {
			m, err := c.sandbox.connection()
			if err != nil {
				return nil // the monitor is gone, and the pod will be found lost
			}
			return m.Start(r.ociRoot(), id, rec.Pid.Pid)
		}
	}
	return nil
}

// removeStrays removes what no record speaks of.
func (r *Runtime) removeStrays() error {
	var errs []error
	strays := func(dir string, known func(id string) bool, remove func(path string) error) {
		ids, err := names(filepath.Join(r.cfg.State, dir))
		errs = append(errs, err)
		for _, id := range ids {
			if !known(id) {
				errs = append(errs, remove(filepath.Join(r.cfg.State, dir, id)))
			}
		}
	}
	sandboxes := func(id string) bool { return r.sandboxes[id] != nil }
	containers := func(id string) bool { return r.containers[id] != nil }
	strays("sandboxes", sandboxes, func(path string) error {
		if m, err := r.helper.DialMonitor(path); err == nil {
			errs = append(errs, m.Stop(), m.Close())
		}
		return errors.Join(image.Unmount(filepath.Join(path, "shm")), os.RemoveAll(path))
	})
	strays("netns", sandboxes, unpin)
	strays("containers", containers, func(path string) error {
		if err := unmountBelow(path); err != nil {
			return err
		}
		return os.RemoveAll(path)
	})
	strays("oci", containers, os.RemoveAll)
	return errors.Join(errs...)
}

// follow watches the monitor of a sandbox until it ends or the runtime does.
func (r *Runtime) follow(s *sandbox) {
	r.watching.Go(func() {
		rec := s.record.Load()
		m, err := s.connection()
		if err == nil {
			err = m.Events(r.ctx, func() { r.catchUp(rec.ID) }, func(e oci.Event) {
				if e.Container == "" {
					r.lost(s, "the process that holds the pod's namespaces is gone")
					return
				}
				if c, err := r.findContainer(e.Container); err == nil {
					r.exited(c)
				}
			})
		}
		if r.ctx.Err() == nil && err != nil {
			r.lost(s, err.Error())
		}
	})
}

// catchUp records the containers that ended while nobody watched.
func (r *Runtime) catchUp(sandbox string) {
	for _, c := range r.containersOf(sandbox) {
		if rec := c.record.Load(); r.hasExit(rec.ID) {
			r.exited(c)
		} else if rec.died() {
			r.watching.Go(func() {
				if r.awaitExit(c) {
					r.exited(c)
				}
			})
		}
	}
}

// exitWait is how long a living monitor may take to record the end of a process
// that is dead. Only one that cannot write takes longer than a moment.
const exitWait = 10 * time.Second

// awaitExit waits until the monitor of a dead container has recorded its end or
// can do so no more; false when the runtime closes before that.
func (r *Runtime) awaitExit(c *container) bool {
	id, monitor := c.record.Load().ID, c.sandbox.record.Load().MonitorPid
	timeout := time.NewTimer(exitWait)
	defer timeout.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for monitor.alive() && !r.hasExit(id) {
		select {
		case <-tick.C:
		case <-timeout.C:
			return true
		case <-r.ctx.Done():
			return false
		}
	}
	return true
}

// hasExit says whether the end of a container is recorded.
func (r *Runtime) hasExit(id string) bool {
	_, err := os.Stat(filepath.Join(r.containerRoot(id), "exit"))
	return err == nil
}

// lost ends a sandbox whose monitor or whose holder of namespaces has died.
func (r *Runtime) lost(s *sandbox, why string) {
	rec := s.record.Load()
	if !rec.Ready {
		return
	}
	r.log.Warn("sandbox lost", "sandbox", rec.ID, "pod", rec.Config.value.GetMetadata().GetName(), "reason", why)
	for _, c := range r.containersOf(rec.ID) {
		if err := r.cgroups.Kill(c.record.Load().Cgroup); err != nil {
			r.log.Warn("killing a container of a lost sandbox", "container", c.record.Load().ID, "err", err)
		}
		if c.record.Load().State == runtimeapi.ContainerState_CONTAINER_RUNNING && !r.awaitExit(c) {
			return
		}
		r.exited(c)
	}
	if err := r.updateSandbox(s, func(rec *sandboxRecord) { rec.Ready = false }); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Warn("recording a lost sandbox", "sandbox", rec.ID, "err", err)
	}
	r.emitSandbox(s, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}
