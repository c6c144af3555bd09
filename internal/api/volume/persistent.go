// SPDX-License-Identifier: Apache-2.0

package volume

import (
	"path"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
)

// PersistentOptions say where the spec of a persistent volume stands.
type PersistentOptions struct {
	// Name is the name of the volume.
	Name string
	// Inline is set for the spec inside a VolumeAttachment.
	Inline bool
	// InvalidNodeValues lets label values through that no node can have.
	InvalidNodeValues bool
}

// DefaultPersistentSpec fills in the defaults of a persistent volume's spec.
func DefaultPersistentSpec(spec *corev1.PersistentVolumeSpec) {
	rule.RoundUp(spec.Capacity)
	if spec.PersistentVolumeReclaimPolicy == "" {
		spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	if spec.VolumeMode == nil {
		mode := corev1.PersistentVolumeFilesystem
		spec.VolumeMode = &mode
	}
	DefaultPersistentSource(&spec.PersistentVolumeSource)
}

// ValidatePersistentSpec checks the spec of a persistent volume.
func ValidatePersistentSpec(spec *corev1.PersistentVolumeSpec, p *field.Path, options PersistentOptions) field.ErrorList {
	var errs field.ErrorList
	const inline = "may not be specified in the context of inline volumes"
	forbid := func(set bool, name, message string) {
		if options.Inline && set {
			errs = append(errs, field.Forbidden(p.Child(name), message))
		}
	}
	forbid(spec.ClaimRef != nil, "claimRef", inline)
	forbid(len(spec.Capacity) != 0, "capacity", inline)
	if options.Inline && spec.CSI == nil {
		errs = append(errs, field.Required(p.Child("csi"), "has to be specified in the context of inline volumes"))
	}
	if len(spec.AccessModes) == 0 {
		errs = append(errs, field.Required(p.Child("accessModes"), ""))
	}
	errs = append(errs, validateAccessModes(spec.AccessModes, p.Child("accessModes"))...)
	if !options.Inline {
		errs = append(errs, validateCapacity(spec.Capacity, p.Child("capacity"))...)
	}

	policy := p.Child("persistentVolumeReclaimPolicy")
	if options.Inline {
		forbid(spec.PersistentVolumeReclaimPolicy != "" && spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain,
			"persistentVolumeReclaimPolicy", "may only be Retain in the context of inline volumes")
		forbid(spec.NodeAffinity != nil, "nodeAffinity", inline)
	} else {
		if spec.PersistentVolumeReclaimPolicy != "" {
			errs = append(errs, rule.OneOf(spec.PersistentVolumeReclaimPolicy, policy, corev1.PersistentVolumeReclaimDelete,
				corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)...)
		}
		errs = append(errs, validateNodeAffinity(spec.NodeAffinity, options.InvalidNodeValues, p.Child("nodeAffinity"))...)
	}
	errs = append(errs, validatePersistentSource(spec, p, options)...)
	if s := spec.HostPath; s != nil && path.Clean(s.Path) == "/" && spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(policy, "may not be 'recycle' for a hostPath mount of '/'"))
	}

	if options.Inline {
		forbid(spec.StorageClassName != "", "storageClassName", inline)
		forbid(spec.VolumeMode != nil && *spec.VolumeMode != corev1.PersistentVolumeFilesystem, "volumeMode",
			"may not specify volumeMode other than Filesystem in the context of inline volumes")
	} else {
		if spec.StorageClassName != "" {
			errs = append(errs, rule.Messages(p.Child("storageClassName"), spec.StorageClassName, apivalidation.NameIsDNSSubdomain(spec.StorageClassName, false))...)
		}
		if spec.VolumeMode != nil {
			errs = append(errs, validateVolumeMode(*spec.VolumeMode, p.Child("volumeMode"))...)
		}
	}
	if name := spec.VolumeAttributesClassName; name != nil {
		child := p.Child("volumeAttributesClassName")
		if *name == "" {
			errs = append(errs, field.Required(child, "an empty string is disallowed"))
		} else {
			errs = append(errs, rule.Messages(child, *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
		}
		if spec.CSI == nil {
			errs = append(errs, field.Required(p.Child("csi"), "has to be specified when using volumeAttributesClassName"))
		}
	}
	return errs
}

func validateCapacity(capacity corev1.ResourceList, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(capacity) == 0 {
		errs = append(errs, field.Required(p, ""))
	}
	if _, ok := capacity[corev1.ResourceStorage]; !ok || len(capacity) > 1 {
		errs = append(errs, field.NotSupported(p, capacity, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for _, name := range rule.SortedKeys(capacity) {
		errs = append(errs, rule.BasicQuantity(capacity[name], p.Key(string(name)))...)
		errs = append(errs, rule.Positive(capacity[name], p.Key(string(name)))...)
	}
	return errs
}

func validateNodeAffinity(affinity *corev1.VolumeNodeAffinity, invalidValues bool, p *field.Path) field.ErrorList {
	switch {
	case affinity == nil:
		return nil
	case affinity.Required == nil:
		return field.ErrorList{field.Required(p.Child("required"), "must specify required node constraints")}
	}
	return rule.NodeSelector(affinity.Required, invalidValues, p.Child("required"))
}

// ValidateNodeAffinityUpdate lets a node affinity change only from beta label
// keys to the stable ones.
func ValidateNodeAffinityUpdate(affinity, old *corev1.VolumeNodeAffinity, same func(a, b *corev1.VolumeNodeAffinity) bool, p *field.Path) field.ErrorList {
	renamed := old.DeepCopy()
	if renamed.Required != nil && affinity != nil && affinity.Required != nil {
		for i := range renamed.Required.NodeSelectorTerms {
			if i < len(affinity.Required.NodeSelectorTerms) {
				renameKeys(renamed.Required.NodeSelectorTerms[i].MatchExpressions, affinity.Required.NodeSelectorTerms[i].MatchExpressions)
			}
		}
	}
	if same(affinity, renamed) {
		return nil
	}
	return field.ErrorList{field.Invalid(p, badvalue.Of(affinity), apivalidation.FieldImmutableErrorMsg+", except for updating from beta label to GA")}
}

func renameKeys(old, now []corev1.NodeSelectorRequirement) {
	stable := map[string]string{
		corev1.LabelFailureDomainBetaZone:   corev1.LabelTopologyZone,
		corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
		"beta.kubernetes.io/os":             corev1.LabelOSStable,
		"beta.kubernetes.io/arch":           corev1.LabelArchStable,
		corev1.LabelInstanceType:            corev1.LabelInstanceTypeStable,
	}
	for i := range old {
		if i < len(now) && stable[old[i].Key] == now[i].Key {
			old[i].Key = now[i].Key
		}
	}
}

func validatePersistentSource(spec *corev1.PersistentVolumeSpec, p *field.Path, options PersistentOptions) field.ErrorList {
	s := &spec.PersistentVolumeSource
	c := &Choice{Path: p}
	c.Member(s.HostPath != nil, "hostPath", func(p *field.Path) field.ErrorList { return HostPath(s.HostPath, p) })
	c.Misnamed(s.GCEPersistentDisk != nil, "gcePersistentDisk", "persistentDisk", func(p *field.Path) field.ErrorList {
		return GCEPersistentDisk(s.GCEPersistentDisk, p)
	})
	c.Member(s.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(p *field.Path) field.ErrorList {
		return AWSElasticBlockStore(s.AWSElasticBlockStore, p)
	})
	c.Member(s.Glusterfs != nil, "glusterfs", func(p *field.Path) field.ErrorList {
		return Glusterfs(s.Glusterfs.EndpointsName, s.Glusterfs.Path, s.Glusterfs.EndpointsNamespace, p)
	})
	c.Member(s.Flocker != nil, "flocker", func(p *field.Path) field.ErrorList { return Flocker(s.Flocker, p) })
	c.Member(s.NFS != nil, "nfs", func(p *field.Path) field.ErrorList { return NFS(s.NFS, p) })
	c.Member(s.RBD != nil, "rbd", func(p *field.Path) field.ErrorList { return RBD(s.RBD.CephMonitors, s.RBD.RBDImage, p) })
	c.Member(s.Quobyte != nil, "quobyte", func(p *field.Path) field.ErrorList { return Quobyte(s.Quobyte, p) })
	c.Misnamed(s.CephFS != nil, "cephFS", "cephfs", func(p *field.Path) field.ErrorList { return CephFS(s.CephFS.Monitors, p) })
	c.Member(s.ISCSI != nil, "iscsi", func(p *field.Path) field.ErrorList { return persistentISCSI(s.ISCSI, options.Name, p) })
	c.Member(s.Cinder != nil, "cinder", func(p *field.Path) field.ErrorList {
		return append(required(p, "volumeID", s.Cinder.VolumeID), namedSecret(s.Cinder.SecretRef, p.Child("secretRef"))...)
	})
	c.Member(s.FC != nil, "fc", func(p *field.Path) field.ErrorList { return FC(s.FC, p) })
	if s.FlexVolume != nil { // which the reference lets stand beside those above
		c.chosen = false
	}
	c.Member(s.FlexVolume != nil, "flexVolume", func(p *field.Path) field.ErrorList {
		return FlexVolume(s.FlexVolume.Driver, s.FlexVolume.Options, p)
	})
	c.Member(s.AzureFile != nil, "azureFile", func(p *field.Path) field.ErrorList {
		errs := AzureFile(s.AzureFile.SecretName, s.AzureFile.ShareName, p)
		if ns := s.AzureFile.SecretNamespace; ns != nil {
			errs = append(errs, required(p, "secretNamespace", *ns)...)
		}
		return errs
	})
	c.Member(s.VsphereVolume != nil, "vsphereVolume", func(p *field.Path) field.ErrorList { return VsphereVolume(s.VsphereVolume, p) })
	c.Member(s.PhotonPersistentDisk != nil, "photonPersistentDisk", func(p *field.Path) field.ErrorList {
		return PhotonPersistentDisk(s.PhotonPersistentDisk, p)
	})
	c.Member(s.PortworxVolume != nil, "portworxVolume", func(p *field.Path) field.ErrorList { return Portworx(s.PortworxVolume, p) })
	c.Member(s.AzureDisk != nil, "azureDisk", func(p *field.Path) field.ErrorList { return AzureDisk(s.AzureDisk, p) })
	c.Member(s.ScaleIO != nil, "scaleIO", func(p *field.Path) field.ErrorList {
		return ScaleIO(s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName, p)
	})
	c.Member(s.Local != nil, "local", func(p *field.Path) field.ErrorList {
		errs := required(p, "path", s.Local.Path)
		errs = append(errs, rule.NoBacksteps(s.Local.Path, p.Child("path"))...)
		if spec.NodeAffinity == nil || options.Inline {
			errs = append(errs, field.Required(c.Path.Child("nodeAffinity"), "Local volume requires node affinity"))
		}
		return errs
	})
	c.Member(s.StorageOS != nil, "storageos", func(p *field.Path) field.ErrorList {
		errs := StorageOS(s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace, p)
		if ref := s.StorageOS.SecretRef; ref != nil {
			errs = append(errs, required(p.Child("secretRef"), "name", ref.Name, "namespace", ref.Namespace)...)
		}
		return errs
	})
	c.Member(s.CSI != nil, "csi", func(p *field.Path) field.ErrorList { return persistentCSI(s.CSI, p) })
	return c.Done()
}

func persistentISCSI(s *corev1.ISCSIPersistentVolumeSource, volumeName string, p *field.Path) field.ErrorList {
	errs := ISCSI(s.TargetPortal, s.IQN, "must be valid format", s.Lun,
		(s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil, s.InitiatorName, p)
	if s.InitiatorName != nil && len(volumeName+":"+s.TargetPortal) > 64 {
		errs = append(errs, field.Invalid(p.Child("targetportal"), s.TargetPortal, ISCSITooLong))
	}
	if s.SecretRef != nil {
		errs = append(errs, required(p.Child("secretRef"), "name", s.SecretRef.Name)...)
	}
	return errs
}

func namedSecret(ref *corev1.SecretReference, p *field.Path) field.ErrorList {
	if ref == nil {
		return nil
	}
	return required(p, "name", ref.Name, "namespace", ref.Namespace)
}

func persistentCSI(s *corev1.CSIPersistentVolumeSource, p *field.Path) field.ErrorList {
	errs := CSIDriverName(s.Driver, p.Child("driver"))
	errs = append(errs, required(p, "volumeHandle", s.VolumeHandle)...)
	for _, secret := range []struct {
		name string
		ref  *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", s.ControllerPublishSecretRef},
		{"controllerExpandSecretRef", s.ControllerExpandSecretRef},
		{"nodePublishSecretRef", s.NodePublishSecretRef},
		{"nodeExpandSecretRef", s.NodeExpandSecretRef},
	} {
		if secret.ref == nil {
			continue
		}
		child := p.Child(secret.name)
		if secret.ref.Name == "" {
			errs = append(errs, field.Required(child.Child("name"), ""))
		} else {
			errs = append(errs, rule.Subdomain(secret.ref.Name, child.Child("name"))...)
		}
		if secret.ref.Namespace == "" {
			errs = append(errs, field.Required(child.Child("namespace"), ""))
		} else {
			errs = append(errs, rule.Label(secret.ref.Namespace, child.Child("namespace"))...)
		}
	}
	return errs
}
