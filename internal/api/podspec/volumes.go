// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
	"kaji/internal/api/volume"
)

// validateVolumes checks the volumes, and remembers the valid ones for the
// mounts that refer to them.
func (c *checker) validateVolumes(p *field.Path) field.ErrorList {
	var errs field.ErrorList
	created := sets.New[string]() // claims that the pod's ephemeral volumes make
	if c.meta != nil && c.meta.Name != "" {
		for i := range c.spec.Volumes {
			if c.spec.Volumes[i].Ephemeral != nil {
				created.Insert(c.meta.Name + "-" + c.spec.Volumes[i].Name)
			}
		}
	}
	for i := range c.spec.Volumes {
		v, p := &c.spec.Volumes[i], p.Index(i)
		bad := c.validateVolumeSource(v, p)
		if v.Name == "" {
			bad = append(bad, field.Required(p.Child("name"), ""))
		} else {
			bad = append(bad, rule.Label(v.Name, p.Child("name"))...)
		}
		if _, ok := c.volumes[v.Name]; ok {
			bad = append(bad, field.Duplicate(p.Child("name"), v.Name))
		}
		if len(bad) == 0 {
			c.volumes[v.Name] = v
		}
		errs = append(errs, bad...)
		if claim := v.PersistentVolumeClaim; claim != nil && created.Has(claim.ClaimName) {
			errs = append(errs, field.Invalid(p.Child("persistentVolumeClaim", "claimName"), claim.ClaimName,
				"must not reference a PVC that gets created for an ephemeral volume"))
		}
	}
	return errs
}

func (c *checker) validateVolumeSource(v *corev1.Volume, p *field.Path) field.ErrorList {
	s := &v.VolumeSource
	u := &volume.Choice{Path: p}
	u.Member(s.EmptyDir != nil, "emptyDir", func(p *field.Path) field.ErrorList {
		if limit := s.EmptyDir.SizeLimit; limit != nil && limit.Sign() < 0 {
			return field.ErrorList{field.Forbidden(p.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")}
		}
		return nil
	})
	u.Member(s.HostPath != nil, "hostPath", func(p *field.Path) field.ErrorList { return volume.HostPath(s.HostPath, p) })
	u.Member(s.GitRepo != nil, "gitRepo", func(p *field.Path) field.ErrorList {
		return append(required(p, "repository", s.GitRepo.Repository), rule.Descending(s.GitRepo.Directory, p.Child("directory"))...)
	})
	u.Misnamed(s.GCEPersistentDisk != nil, "gcePersistentDisk", "persistentDisk", func(p *field.Path) field.ErrorList {
		return volume.GCEPersistentDisk(s.GCEPersistentDisk, p)
	})
	u.Member(s.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(p *field.Path) field.ErrorList {
		return volume.AWSElasticBlockStore(s.AWSElasticBlockStore, p)
	})
	u.Member(s.Secret != nil, "secret", func(p *field.Path) field.ErrorList {
		return append(required(p, "secretName", s.Secret.SecretName), validateKeys(s.Secret.DefaultMode, s.Secret.Items, p)...)
	})
	u.Member(s.NFS != nil, "nfs", func(p *field.Path) field.ErrorList { return volume.NFS(s.NFS, p) })
	u.Member(s.ISCSI != nil, "iscsi", func(p *field.Path) field.ErrorList {
		return volume.ISCSI(s.ISCSI.TargetPortal, s.ISCSI.IQN, "must be valid format starting with iqn, eui, or naa", s.ISCSI.Lun,
			(s.ISCSI.DiscoveryCHAPAuth || s.ISCSI.SessionCHAPAuth) && s.ISCSI.SecretRef == nil, s.ISCSI.InitiatorName, p)
	})
	if s.ISCSI != nil && s.ISCSI.InitiatorName != nil && len(v.Name+":"+s.ISCSI.TargetPortal) > 64 {
		u.Errors = append(u.Errors, field.Invalid(p.Child("name"), v.Name, volume.ISCSITooLong))
	}
	u.Member(s.Glusterfs != nil, "glusterfs", func(p *field.Path) field.ErrorList {
		return volume.Glusterfs(s.Glusterfs.EndpointsName, s.Glusterfs.Path, nil, p)
	})
	u.Member(s.Flocker != nil, "flocker", func(p *field.Path) field.ErrorList { return volume.Flocker(s.Flocker, p) })
	u.Member(s.PersistentVolumeClaim != nil, "persistentVolumeClaim", func(p *field.Path) field.ErrorList {
		return required(p, "claimName", s.PersistentVolumeClaim.ClaimName)
	})
	u.Member(s.RBD != nil, "rbd", func(p *field.Path) field.ErrorList { return volume.RBD(s.RBD.CephMonitors, s.RBD.RBDImage, p) })
	u.Member(s.Cinder != nil, "cinder", func(p *field.Path) field.ErrorList {
		return append(required(p, "volumeID", s.Cinder.VolumeID), namedSecret(s.Cinder.SecretRef, p.Child("secretRef"))...)
	})
	u.Misnamed(s.CephFS != nil, "cephFS", "cephfs", func(p *field.Path) field.ErrorList { return volume.CephFS(s.CephFS.Monitors, p) })
	u.Member(s.Quobyte != nil, "quobyte", func(p *field.Path) field.ErrorList { return volume.Quobyte(s.Quobyte, p) })
	u.Misnamed(s.DownwardAPI != nil, "downwarAPI", "downwardAPI", func(p *field.Path) field.ErrorList {
		errs := validateMode(s.DownwardAPI.DefaultMode, p.Child("defaultMode"))
		for i := range s.DownwardAPI.Items {
			errs = append(errs, validateDownwardFile(&s.DownwardAPI.Items[i], p)...)
		}
		return errs
	})
	u.Member(s.FC != nil, "fc", func(p *field.Path) field.ErrorList { return volume.FC(s.FC, p) })
	u.Member(s.FlexVolume != nil, "flexVolume", func(p *field.Path) field.ErrorList {
		return volume.FlexVolume(s.FlexVolume.Driver, s.FlexVolume.Options, p)
	})
	u.Member(s.ConfigMap != nil, "configMap", func(p *field.Path) field.ErrorList {
		return append(required(p, "name", s.ConfigMap.Name), validateKeys(s.ConfigMap.DefaultMode, s.ConfigMap.Items, p)...)
	})
	u.Member(s.AzureFile != nil, "azureFile", func(p *field.Path) field.ErrorList {
		return volume.AzureFile(s.AzureFile.SecretName, s.AzureFile.ShareName, p)
	})
	u.Member(s.VsphereVolume != nil, "vsphereVolume", func(p *field.Path) field.ErrorList { return volume.VsphereVolume(s.VsphereVolume, p) })
	u.Member(s.PhotonPersistentDisk != nil, "photonPersistentDisk", func(p *field.Path) field.ErrorList {
		return volume.PhotonPersistentDisk(s.PhotonPersistentDisk, p)
	})
	u.Member(s.PortworxVolume != nil, "portworxVolume", func(p *field.Path) field.ErrorList { return volume.Portworx(s.PortworxVolume, p) })
	u.Member(s.AzureDisk != nil, "azureDisk", func(p *field.Path) field.ErrorList { return volume.AzureDisk(s.AzureDisk, p) })
	u.Member(s.StorageOS != nil, "storageos", func(p *field.Path) field.ErrorList {
		return append(volume.StorageOS(s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace, p), namedSecret(s.StorageOS.SecretRef, p.Child("secretRef"))...)
	})
	u.Member(s.Projected != nil, "projected", func(p *field.Path) field.ErrorList { return c.validateProjected(s.Projected, p) })
	u.Member(s.ScaleIO != nil, "scaleIO", func(p *field.Path) field.ErrorList {
		return volume.ScaleIO(s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName, p)
	})
	u.Member(s.CSI != nil, "csi", func(p *field.Path) field.ErrorList { return validateCSI(s.CSI, p) })
	u.Member(s.Ephemeral != nil, "ephemeral", func(p *field.Path) field.ErrorList { return c.validateEphemeral(v, u.Path, p) })
	u.Member(s.Image != nil, "image", func(p *field.Path) field.ErrorList {
		var errs field.ErrorList
		if c.options.Pod && !c.options.EmptyImageVolumeReference {
			errs = required(p, "reference", s.Image.Reference)
		}
		return append(errs, validatePullPolicy(s.Image.PullPolicy, p.Child("pullPolicy"))...)
	})
	return u.Done()
}

func required(p *field.Path, name, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(p.Child(name), "")}
	}
	return nil
}

func namedSecret(ref *corev1.LocalObjectReference, p *field.Path) field.ErrorList {
	if ref == nil {
		return nil
	}
	return required(p, "name", ref.Name)
}

func validateMode(mode *int32, p *field.Path) field.ErrorList {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		return field.ErrorList{field.Invalid(p, *mode, "must be a number between 0 and 0777 (octal), both inclusive")}
	}
	return nil
}

func validateKeys(mode *int32, items []corev1.KeyToPath, p *field.Path) field.ErrorList {
	errs := validateMode(mode, p.Child("defaultMode"))
	for i := range items {
		errs = append(errs, validateKeyToPath(&items[i], p.Child("items").Index(i))...)
	}
	return errs
}

func validateKeyToPath(item *corev1.KeyToPath, p *field.Path) field.ErrorList {
	errs := required(p, "key", item.Key)
	errs = append(errs, required(p, "path", item.Path)...)
	errs = append(errs, rule.NonReserved(item.Path, p.Child("path"))...)
	return append(errs, validateMode(item.Mode, p.Child("mode"))...)
}

func validateDownwardFile(file *corev1.DownwardAPIVolumeFile, p *field.Path) field.ErrorList {
	errs := required(p, "path", file.Path)
	errs = append(errs, rule.NonReserved(file.Path, p.Child("path"))...)
	switch {
	case file.FieldRef != nil:
		errs = append(errs, validateFieldRef(file.FieldRef, volumeFieldPaths(), p.Child("fieldRef"))...)
		if file.ResourceFieldRef != nil {
			errs = append(errs, field.Invalid(p, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		}
	case file.ResourceFieldRef != nil:
		errs = append(errs, validateResourceFieldRef(file.ResourceFieldRef, true, p.Child("resourceFieldRef"))...)
	default:
		errs = append(errs, field.Required(p, "one of fieldRef and resourceFieldRef is required"))
	}
	return append(errs, validateMode(file.Mode, p.Child("mode"))...)
}

func validateCSI(s *corev1.CSIVolumeSource, p *field.Path) field.ErrorList {
	errs := volume.CSIDriverName(s.Driver, p.Child("driver"))
	if ref := s.NodePublishSecretRef; ref != nil {
		if ref.Name == "" {
			return append(errs, field.Required(p.Child("nodePublishSecretRef", "name"), ""))
		}
		errs = append(errs, rule.Messages(p.Child("name"), ref.Name, apivalidation.NameIsDNSSubdomain(ref.Name, false))...)
	}
	return errs
}

func (c *checker) validateEphemeral(v *corev1.Volume, volumePath, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if template := v.Ephemeral.VolumeClaimTemplate; template == nil {
		errs = append(errs, field.Required(p.Child("volumeClaimTemplate"), ""))
	} else {
		errs = append(errs, volume.ValidateClaimTemplate(template, p.Child("volumeClaimTemplate"), volume.ClaimOptions{})...)
	}
	if c.meta != nil && c.meta.Name != "" && v.Name != "" {
		claim := c.meta.Name + "-" + v.Name
		for _, message := range apivalidation.NameIsDNSSubdomain(claim, false) {
			errs = append(errs, field.Invalid(volumePath.Child("name"), v.Name, fmt.Sprintf("PVC name %q: %v", claim, message)))
		}
	}
	return errs
}
