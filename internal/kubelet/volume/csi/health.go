// SPDX-License-Identifier: Apache-2.0

package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
)

// VolumeHealth asks the driver of the volume at a directory what is wrong with it
// (KEP-1432); nothing is good news. Tells is false where the driver does not say.
func (r *Registry) VolumeHealth(ctx context.Context, dir string) (conditions []corev1.VolumeHealthCondition, tells bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, dataFile))
	if err != nil {
		return nil, false, err
	}
	var v data
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, false, fmt.Errorf("read what the volume is: %w", err)
	}
	d, err := r.driver(v.Driver)
	if err != nil || !d.health {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, call)
	defer cancel()
	answer, err := d.node.NodeGetVolumeHealth(ctx, &csispec.NodeGetVolumeHealthRequest{VolumeId: v.Handle, StagingTargetPath: v.Staging, VolumePublishPath: v.Target})
	if err != nil {
		return nil, true, err
	}
	for _, one := range answer.GetVolumeHealth().GetHealthStatuses() {
		status, known := map[csispec.VolumeHealthErrorType]corev1.VolumeHealthStatusType{csispec.VolumeHealthErrorType_INACCESSIBLE: corev1.VolumeHealthInaccessible,
			csispec.VolumeHealthErrorType_DATA_LOSS: corev1.VolumeHealthDataLoss, csispec.VolumeHealthErrorType_DEGRADED: corev1.VolumeHealthDegraded}[one.GetStatus()]
		if known {
			conditions = append(conditions, corev1.VolumeHealthCondition{Status: status, Reason: one.GetReason(), Message: one.GetMessage()})
		}
	}
	return conditions, true, nil
}
