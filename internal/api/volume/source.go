// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"net"
	"path"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

// HostPath checks a path on the node.
func HostPath(s *corev1.HostPathVolumeSource, p *field.Path) field.ErrorList {
	if s.Path == "" {
		return field.ErrorList{field.Required(p.Child("path"), "")}
	}
	errs := rule.NoBacksteps(s.Path, p.Child("path"))
	if s.Type != nil {
		errs = append(errs, rule.OneOf(*s.Type, p.Child("type"),
			corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory, corev1.HostPathFileOrCreate,
			corev1.HostPathFile, corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev)...)
	}
	return errs
}

// GCEPersistentDisk checks a disk of Google Compute Engine.
func GCEPersistentDisk(s *corev1.GCEPersistentDiskVolumeSource, p *field.Path) field.ErrorList {
	return append(required(p, "pdName", s.PDName), partition(s.Partition, p.Child("partition"))...)
}

// AWSElasticBlockStore checks a disk of Amazon EC2.
func AWSElasticBlockStore(s *corev1.AWSElasticBlockStoreVolumeSource, p *field.Path) field.ErrorList {
	return append(required(p, "volumeID", s.VolumeID), partition(s.Partition, p.Child("partition"))...)
}

func partition(n int32, p *field.Path) field.ErrorList {
	if n < 0 || n > 255 {
		return field.ErrorList{field.Invalid(p, n, validation.InclusiveRangeError(1, 255))}
	}
	return nil
}

func lun(n int32, p *field.Path) field.ErrorList {
	if n < 0 || n > 255 {
		return field.ErrorList{field.Invalid(p, n, validation.InclusiveRangeError(0, 255))}
	}
	return nil
}

// NFS checks an NFS export.
func NFS(s *corev1.NFSVolumeSource, p *field.Path) field.ErrorList {
	errs := required(p, "server", s.Server, "path", s.Path)
	if !path.IsAbs(s.Path) {
		errs = append(errs, field.Invalid(p.Child("path"), s.Path, "must be an absolute path"))
	}
	return errs
}

// Quobyte checks a Quobyte mount.
func Quobyte(s *corev1.QuobyteVolumeSource, p *field.Path) field.ErrorList {
	const pairs = "must be a host:port pair or multiple pairs separated by commas"
	var errs field.ErrorList
	switch {
	case s.Registry == "":
		errs = append(errs, field.Required(p.Child("registry"), pairs))
	case len(s.Tenant) >= 65:
		errs = append(errs, field.Required(p.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
	default:
		for pair := range strings.SplitSeq(s.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				errs = append(errs, field.Invalid(p.Child("registry"), s.Registry, pairs))
			}
		}
	}
	return append(errs, required(p, "volume", s.Volume)...)
}

// Glusterfs checks a Glusterfs mount of a pod or, with namespace, of a
// persistent volume.
func Glusterfs(endpoints, mountPath string, namespace *string, p *field.Path) field.ErrorList {
	errs := required(p, "endpoints", endpoints, "path", mountPath)
	if namespace == nil {
		return errs
	}
	child := p.Child("endpointsNamespace")
	if *namespace == "" {
		return append(errs, field.Invalid(child, *namespace, "if the endpointnamespace is set, it must be a valid namespace name"))
	}
	return append(errs, rule.Messages(child, *namespace, apivalidation.ValidateNamespaceName(*namespace, false))...)
}

// Flocker checks a Flocker dataset.
func Flocker(s *corev1.FlockerVolumeSource, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.DatasetName == "" && s.DatasetUUID == "" {
		errs = append(errs, field.Required(p, "one of datasetName and datasetUUID is required"))
	}
	if s.DatasetName != "" && s.DatasetUUID != "" {
		errs = append(errs, field.Invalid(p, "resource", "datasetName and datasetUUID can not be specified simultaneously"))
	}
	if strings.Contains(s.DatasetName, "/") {
		errs = append(errs, field.Invalid(p.Child("datasetName"), s.DatasetName, "must not contain '/'"))
	}
	return errs
}

// RBD checks a Ceph block device.
func RBD(monitors []string, image string, p *field.Path) field.ErrorList {
	return append(CephFS(monitors, p), required(p, "image", image)...)
}

// CephFS checks a Ceph file system.
func CephFS(monitors []string, p *field.Path) field.ErrorList {
	if len(monitors) == 0 {
		return field.ErrorList{field.Required(p.Child("monitors"), "")}
	}
	return nil
}

// FC checks a Fibre Channel target.
func FC(s *corev1.FCVolumeSource, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	targets := p.Child("targetWWNs")
	if len(s.TargetWWNs) < 1 && len(s.WWIDs) < 1 {
		errs = append(errs, field.Required(targets, "must specify either targetWWNs or wwids, but not both"))
	}
	if len(s.TargetWWNs) != 0 && len(s.WWIDs) != 0 {
		errs = append(errs, field.Invalid(targets, s.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously"))
	}
	if len(s.TargetWWNs) != 0 {
		if s.Lun == nil {
			errs = append(errs, field.Required(p.Child("lun"), "lun is required if targetWWNs is specified"))
		} else {
			errs = append(errs, lun(*s.Lun, p.Child("lun"))...)
		}
	}
	return errs
}

// FlexVolume checks a volume of an exec plug-in.
func FlexVolume(driver string, options map[string]string, p *field.Path) field.ErrorList {
	errs := required(p, "driver", driver)
	for _, key := range rule.SortedKeys(options) {
		namespace, _, _ := strings.Cut(key, "/")
		domain := "." + strings.ToLower(namespace)
		if strings.HasSuffix(domain, ".kubernetes.io") || strings.HasSuffix(domain, ".k8s.io") {
			errs = append(errs, field.Invalid(p.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved"))
		}
	}
	return errs
}

// AzureFile checks an Azure file share.
func AzureFile(secret, share string, p *field.Path) field.ErrorList {
	return required(p, "secretName", secret, "shareName", share)
}

// AzureDisk checks an Azure disk.
func AzureDisk(s *corev1.AzureDiskVolumeSource, p *field.Path) field.ErrorList {
	errs := required(p, "diskName", s.DiskName, "diskURI", s.DataDiskURI)
	if s.CachingMode != nil {
		errs = append(errs, rule.OneOf(*s.CachingMode, p.Child("cachingMode"),
			corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)...)
	}
	if s.Kind == nil {
		return errs
	}
	errs = append(errs, rule.OneOf(*s.Kind, p.Child("kind"),
		corev1.AzureSharedBlobDisk, corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk)...)
	prefix, form := "https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if *s.Kind == corev1.AzureManagedDisk {
		prefix, form = "/subscriptions/", "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	}
	if !strings.HasPrefix(s.DataDiskURI, prefix) {
		errs = append(errs, field.NotSupported(p.Child("diskURI"), s.DataDiskURI, []string{form}))
	}
	return errs
}

// VsphereVolume checks a vSphere disk.
func VsphereVolume(s *corev1.VsphereVirtualDiskVolumeSource, p *field.Path) field.ErrorList {
	return required(p, "volumePath", s.VolumePath)
}

// PhotonPersistentDisk checks a disk of Photon Controller.
func PhotonPersistentDisk(s *corev1.PhotonPersistentDiskVolumeSource, p *field.Path) field.ErrorList {
	return required(p, "pdID", s.PdID)
}

// Portworx checks a Portworx volume.
func Portworx(s *corev1.PortworxVolumeSource, p *field.Path) field.ErrorList {
	return required(p, "volumeID", s.VolumeID)
}

// ScaleIO checks a ScaleIO volume.
func ScaleIO(gateway, system, volumeName string, p *field.Path) field.ErrorList {
	return required(p, "gateway", gateway, "system", system, "volumeName", volumeName)
}

// StorageOS checks a StorageOS volume.
func StorageOS(name, namespace string, p *field.Path) field.ErrorList {
	errs := required(p, "volumeName", name)
	if name != "" {
		errs = append(errs, rule.Label(name, p.Child("volumeName"))...)
	}
	if namespace != "" {
		errs = append(errs, rule.Label(namespace, p.Child("volumeNamespace"))...)
	}
	return errs
}

// CSIDriverName checks the name of a CSI driver.
func CSIDriverName(name string, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	if len(name) > 63 {
		errs = append(errs, field.TooLong(p, "", 63))
	}
	return append(errs, rule.Messages(p, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))...)
}

var (
	iqnFormat = regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`)
	euiFormat = regexp.MustCompile(`^eui.[[:alnum:]]{16}$`)
	naaFormat = regexp.MustCompile(`^naa.[[:alnum:]]{32}$`)
)

// IQN checks the name of an iSCSI node; unknown is the message for a name that
// begins as none does.
func IQN(name, unknown string, p *field.Path) field.ErrorList {
	for prefix, format := range map[string]*regexp.Regexp{"iqn": iqnFormat, "eui": euiFormat, "naa": naaFormat} {
		if strings.HasPrefix(name, prefix) {
			if format.MatchString(name) {
				return nil
			}
			return field.ErrorList{field.Invalid(p, name, "must be valid format")}
		}
	}
	return field.ErrorList{field.Invalid(p, name, unknown)}
}

// ISCSITooLong is the message for an initiator whose session name is too long.
const ISCSITooLong = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."

// ISCSI checks an iSCSI target; unknown is the message of IQN.
func ISCSI(portal, iqn, unknown string, number int32, chap bool, initiator *string, p *field.Path) field.ErrorList {
	errs := required(p, "targetPortal", portal, "iqn", iqn)
	if iqn != "" {
		errs = append(errs, IQN(iqn, unknown, p.Child("iqn"))...)
	}
	errs = append(errs, lun(number, p.Child("lun"))...)
	if chap {
		errs = append(errs, field.Required(p.Child("secretRef"), ""))
	}
	if initiator != nil {
		errs = append(errs, IQN(*initiator, unknown, p.Child("initiatorname"))...)
	}
	return errs
}
