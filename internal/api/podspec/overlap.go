// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

func labelValue(value string) []string { return validation.IsValidLabelValue(value) }

// placed is a file of a volume and where it comes from, empty when the volume
// has one source only.
type placed struct{ path, source string }

func (f placed) String() string {
	if f.source == "" {
		return fmt.Sprintf("%q", f.path)
	}
	return fmt.Sprintf("%q (%s)", f.path, f.source)
}

// overlaps warns of files of one volume that lie at or below one another.
func (w *warner) overlaps() {
	for _, v := range w.spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			w.overlap(fmt.Sprintf("volume %q (ConfigMap %q)", v.Name, v.ConfigMap.Name), keyPaths(v.ConfigMap.Items, ""))
		case v.Secret != nil:
			w.overlap(fmt.Sprintf("volume %q (Secret %q)", v.Name, v.Secret.SecretName), keyPaths(v.Secret.Items, ""))
		case v.DownwardAPI != nil:
			w.overlap(fmt.Sprintf("volume %q (DownwardAPI)", v.Name), downwardPaths(v.DownwardAPI.Items, ""))
		case v.Projected != nil:
			var files []placed
			for _, s := range v.Projected.Sources {
				if s == (corev1.VolumeProjection{}) {
					w.out = append(w.out, fmt.Sprintf("volume %q (Projected) has no sources provided", v.Name))
					continue
				}
				files = append(files, projectedPaths(&s)...)
			}
			w.overlap(fmt.Sprintf("volume %q (Projected)", v.Name), files)
		}
	}
}

func (w *warner) overlap(volume string, files []placed) {
	for i := range files {
		files[i].path = strings.TrimRight(files[i].path, "/")
		for _, earlier := range files[:i] {
			a, b := files[i], earlier
			if a.path == b.path || strings.HasPrefix(a.path, b.path+"/") || strings.HasPrefix(b.path, a.path+"/") {
				w.out = append(w.out, fmt.Sprintf("%s: overlapping paths: %s with %s", volume, a, b))
			}
		}
	}
}

func keyPaths(items []corev1.KeyToPath, source string) []placed {
	var out []placed
	for _, item := range items {
		out = append(out, placed{item.Path, source})
	}
	return out
}

func downwardPaths(items []corev1.DownwardAPIVolumeFile, source string) []placed {
	var out []placed
	for _, item := range items {
		out = append(out, placed{item.Path, source})
	}
	return out
}

func projectedPaths(s *corev1.VolumeProjection) []placed {
	switch {
	case s.ConfigMap != nil:
		return keyPaths(s.ConfigMap.Items, fmt.Sprintf("ConfigMap %q", s.ConfigMap.Name))
	case s.Secret != nil:
		return keyPaths(s.Secret.Items, fmt.Sprintf("Secret %q", s.Secret.Name))
	case s.DownwardAPI != nil:
		return downwardPaths(s.DownwardAPI.Items, "DownwardAPI")
	case s.ServiceAccountToken != nil:
		return []placed{{s.ServiceAccountToken.Path, "ServiceAccountToken"}}
	case s.ClusterTrustBundle != nil:
		from := ""
		if s.ClusterTrustBundle.Name != nil {
			from = *s.ClusterTrustBundle.Name
		} else if s.ClusterTrustBundle.SignerName != nil {
			from = *s.ClusterTrustBundle.SignerName
		}
		return []placed{{s.ClusterTrustBundle.Path, fmt.Sprintf("ClusterTrustBundle %q", from)}}
	case s.PodCertificate != nil:
		var out []placed
		for _, path := range []string{s.PodCertificate.CertificateChainPath, s.PodCertificate.CredentialBundlePath, s.PodCertificate.KeyPath} {
			if path != "" {
				out = append(out, placed{path, "PodCertificate chain"})
			}
		}
		return out
	}
	return nil
}
