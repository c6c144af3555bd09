// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/client"
	"kaji/internal/kubelet/compose"
	"kaji/internal/kubelet/image"
	"kaji/internal/kubelet/podrun"
	"kaji/internal/kubelet/volume"
	"kaji/internal/kubelet/volume/csi"
	"kaji/internal/kubelet/volume/emptydir"
	"kaji/internal/kubelet/volume/hostpath"
	"kaji/internal/kubelet/volume/imagevolume"
	"kaji/internal/kubelet/volume/local"
	"kaji/internal/kubelet/volume/nfs"
	"kaji/internal/kubelet/volume/payload"
)

// host is a Kubelet as containers see it; it implements podrun.Host.
type host Kubelet

var _ podrun.Host = (*host)(nil)

// drivers lists the kinds of volumes.
func (k *Kubelet) drivers() []volume.Driver {
	drivers := []volume.Driver{
		&emptydir.Driver{Mounter: k.cfg.Mounter, Memory: k.cfg.Machine.Memory},
		&hostpath.Driver{},
		&local.Driver{Mounter: k.cfg.Mounter, DevicesDir: filepath.Join(k.cfg.RootDir, "plugins", "kubernetes.io", "local-volume", "mounts"), PodsDir: filepath.Join(k.cfg.RootDir, "pods")},
		&nfs.Driver{Mounter: k.cfg.Mounter},
		&imagevolume.Driver{},
		&csi.Driver{Registry: k.csi, Mounter: k.cfg.Mounter, Client: k.cfg.Client, NodeName: k.cfg.NodeName, PluginsDir: filepath.Join(k.cfg.RootDir, "plugins"),
			PodsDir: filepath.Join(k.cfg.RootDir, "pods"), Tokens: k.tokens.get, InUse: func(all []corev1.UniqueVolumeName) { k.node.SetVolumesInUse(all) }},
	}
	return append(drivers, payload.Drivers(payload.Config{Mounter: k.cfg.Mounter, Objects: k.objects, Tokens: k.tokens.get, TrustBundle: k.trustBundle, Certificate: k.certificates.Get, Facts: k.facts, Logger: k.log})...)
}

func (k *Kubelet) hostIPs() []string {
	ips := make([]string, 0, len(k.cfg.NodeIPs))
	for _, ip := range k.cfg.NodeIPs {
		ips = append(ips, ip.String())
	}
	return ips
}

// facts are what the downward API tells a pod of the node.
func (k *Kubelet) facts(pod *corev1.Pod) compose.Facts {
	f := compose.Facts{HostIPs: k.hostIPs(), Allocatable: k.node.Allocatable()}
	if pod.Spec.HostNetwork {
		f.PodIPs = f.HostIPs
	}
	return f
}

// Options implements podrun.Host.
func (h *host) Options(ctx context.Context, pod *corev1.Pod, c *corev1.Container, podIPs []string) (*podrun.Options, error) {
	k := (*Kubelet)(h)
	facts := k.facts(pod)
	if !pod.Spec.HostNetwork {
		facts.PodIPs = podIPs
	}
	env, err := compose.Env(pod, c, compose.EnvSources{Objects: k.objects, Services: k.visibleServices(pod), Facts: facts,
		File: func(ref *corev1.FileKeySelector) (string, bool, error) { return k.envFile(pod, ref) }})
	if err != nil {
		return nil, err
	}
	options := &podrun.Options{Env: env, TerminationDir: filepath.Join(k.podDir(pod.UID), "containers", c.Name), Relabel: k.selinux}
	if options.Mounts, err = k.mounts(ctx, pod, c, env); err != nil {
		return nil, err
	}
	for i := range c.VolumeDevices {
		d := &c.VolumeDevices[i]
		mounted, ok := k.volumes.Mounted(pod.UID, d.Name)
		if !ok {
			return nil, fmt.Errorf("cannot find volume %q to pass into container %q", d.Name, c.Name)
		}
		permission := "mrw"
		if mounted.ReadOnly {
			permission = "r"
		}
		options.Devices = append(options.Devices, &runtimeapi.Device{HostPath: mounted.Path, ContainerPath: d.DevicePath, Permissions: permission})
	}
	if err := k.devicesOf(ctx, pod, c, options); err != nil {
		return nil, err
	}
	if mount, err := k.hostsMount(pod, c, podIPs); err != nil {
		return nil, err
	} else if mount != nil {
		options.Mounts = append(options.Mounts, mount)
	}
	return options, nil
}

// visibleServices are those that a pod finds in its environment.
func (k *Kubelet) visibleServices(pod *corev1.Pod) []*corev1.Service {
	var visible []*corev1.Service
	if pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
		visible = k.services.CachedList(pod.Namespace, nil)
	}
	if kubernetes, err := k.services.Cached("default", "kubernetes"); err == nil {
		own := false
		for _, s := range visible {
			own = own || s.Name == "kubernetes"
		}
		if !own {
			visible = append(visible, kubernetes)
		}
	}
	return visible
}

// hostsMount writes a pod's hosts file, unless the container brings its own.
func (k *Kubelet) hostsMount(pod *corev1.Pod, c *corev1.Container, podIPs []string) (*runtimeapi.Mount, error) {
	for _, m := range c.VolumeMounts {
		if m.MountPath == "/etc/hosts" {
			return nil, nil
		}
	}
	if !pod.Spec.HostNetwork && len(podIPs) == 0 {
		return nil, nil
	}
	hostname, domain, err := compose.Hostname(pod, k.cfg.ClusterDomain)
	if err != nil {
		return nil, err
	}
	var own []byte
	if pod.Spec.HostNetwork {
		if own, err = os.ReadFile("/etc/hosts"); err != nil {
			return nil, fmt.Errorf("read the node's hosts file: %w", err)
		}
	}
	path := filepath.Join(k.podDir(pod.UID), "etc-hosts")
	content := compose.HostsFile(pod, podIPs, hostname, domain, own)
	if have, err := os.ReadFile(path); err != nil || string(have) != string(content) {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return nil, fmt.Errorf("write the pod's hosts file: %w", err)
		}
		if err := os.Chmod(path, 0o644); err != nil { // whatever the umask is
			return nil, fmt.Errorf("write the pod's hosts file: %w", err)
		}
	}
	return &runtimeapi.Mount{HostPath: path, ContainerPath: "/etc/hosts", SelinuxRelabel: k.selinux}, nil
}

// Sandbox implements podrun.Host.
func (h *host) Sandbox(pod *corev1.Pod, config *runtimeapi.PodSandboxConfig) error {
	k := (*Kubelet)(h)
	dns, warnings, err := k.dns.Config(pod)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		k.recorder.Event(podrun.Reference(pod), corev1.EventTypeWarning, w.Reason, w.Message)
	}
	config.DnsConfig = dns
	if k.cgroups != nil {
		config.Linux.CgroupParent = k.cgroups.Parent(pod)
	}
	if config.Linux.SecurityContext.NamespaceOptions.UsernsOptions, err = k.userNamespace(pod); err != nil {
		return err
	}
	if !pod.Spec.HostNetwork {
		hostname, domain, err := compose.Hostname(pod, k.cfg.ClusterDomain)
		if err != nil {
			return err
		}
		if config.Hostname, err = compose.FQDN(pod, hostname, domain); err != nil {
			return err
		}
	}
	return nil
}

// userNamespace is the pod's own where it does not want the host's.
func (k *Kubelet) userNamespace(pod *corev1.Pod) (*runtimeapi.UserNamespace, error) {
	if pod.Spec.HostUsers == nil || *pod.Spec.HostUsers {
		return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}, nil
	}
	if !k.runtime.Load().userns {
		return nil, errors.New("RuntimeClass handler \"\" does not support user namespaces")
	}
	first, err := k.ranges.Get(pod.UID)
	if err != nil {
		return nil, err
	}
	ids := []*runtimeapi.IDMapping{{HostId: first, Length: k.cfg.IDsPerPod}}
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}, nil
}

// RuntimeHandler implements podrun.Host.
func (h *host) RuntimeHandler(pod *corev1.Pod) (string, error) {
	if pod.Spec.RuntimeClassName == nil || *pod.Spec.RuntimeClassName == "" {
		return "", nil
	}
	class, err := client.For[*nodev1.RuntimeClass](h.cfg.Client).Get(context.Background(), "", *pod.Spec.RuntimeClassName)
	if err != nil {
		return "", err
	}
	return class.Handler, nil
}

// Image implements podrun.Host.
func (h *host) Image(ctx context.Context, pod *corev1.Pod, c *corev1.Container, handler string, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	ref := podrun.Reference(pod)
	ref.FieldPath = podrun.FieldPath(pod, c.Name)
	return h.images.Ensure(ctx, image.Request{Pod: pod, Image: c.Image, Policy: c.ImagePullPolicy, Handler: handler, Sandbox: sandbox, Object: ref})
}

// ImageUser implements podrun.Host.
func (h *host) ImageUser(ctx context.Context, ref string) (podrun.ImageUser, error) {
	return h.images.User(ctx, ref)
}

// MemoryCapacity implements podrun.Host.
func (h *host) MemoryCapacity() int64 { return h.cfg.Machine.Memory }

// credentials are the logins for an image: the pod's and then the node's.
func (k *Kubelet) credentials(ctx context.Context, pod *corev1.Pod, name string) ([]image.Login, error) {
	var secrets []*corev1.Secret
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, err := k.objects.Secret(pod.Namespace, ref.Name)
		if err != nil {
			k.recorder.Eventf(podrun.Reference(pod), corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
				"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", ref.Name)
			continue
		}
		secrets = append(secrets, secret)
	}
	secrets = append(secrets, k.logins.Secrets(ctx, pod, name)...)
	return image.Credentials(name, secrets)
}

// account reads the service account of a pod.
func (k *Kubelet) account(ctx context.Context, pod *corev1.Pod) (*corev1.ServiceAccount, error) {
	return client.For[*corev1.ServiceAccount](k.cfg.Client).Get(ctx, pod.Namespace, pod.Spec.ServiceAccountName)
}

// registryToken issues a token that a pod is known by at a registry.
func (k *Kubelet) registryToken(ctx context.Context, pod *corev1.Pod, audience string) (string, error) {
	return k.tokens.get(ctx, pod, &corev1.ServiceAccountTokenProjection{Audience: audience})
}
