package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/cluster"
	"igcsearch/studies"
)

type kubernetesOptions struct {
	study         string
	workers, gpus positive // gpus 0: not given
	cluster.Kubernetes
	tokenFile string // "": a token is made up
}

func newSubmitKubernetesCommand() *cobra.Command {
	o := kubernetesOptions{workers: 1, Kubernetes: cluster.Kubernetes{CPU: "4", Memory: "8Gi", Storage: "10Gi"}}
	cmd := &cobra.Command{
		Use:   "kubernetes STUDY",
		Short: "Print a study's workers and coordinator for kubectl apply",
		Long: `kubernetes prints what trains a study on a Kubernetes cluster, as YAML: an Indexed
Job of workers, the coordinator with its Deployment, Service and the claim for its
database, and a Secret with the access file. It does not contact a cluster; kubectl
apply gives the YAML to one. STUDY is the name of a shipped study or a file. The YAML
contains the settings of a file.

Each call makes up another token. To print a study again for a cluster that already
has it, keep the token in a file and give --token-file.

Pods that are drained, preempted or evicted give their trials back and are started
elsewhere, as often as it happens. A pod that fails is tried three times more; the
other workers train what it leaves. When nothing is left to train, the Job is
complete, and the coordinator stays, with the page and the database.

It needs Kubernetes 1.29 or later, and an image built by cmd/igcsearch/Dockerfile;
docs/kubernetes.md explains each step.`,
		Example: `  igcsearch submit kubernetes quickstart --image registry.example/igcsearch:1 --workers 4 > q.yaml

  # pictures from a claim, one GPU for each worker, admitted by Kueue
  igcsearch submit kubernetes fig3a --image igcsearch:1 --workers 9 --gpus 1 --pictures cifar --queue gpus > 3a.yaml`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			return runSubmitKubernetes(o, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Image, "image", "", "the `IMAGE` of igcsearch, with its registry and tag")
	flags.Var(&o.workers, "workers", "how many workers, each a pod")
	flags.Var(&o.gpus, "gpus", "NVIDIA GPUs of each worker (default none: it trains on the processor)")
	flags.Var(&o.CPU, "cpu", "cores of each worker, which on the processor trains as many trials at once")
	flags.Var(&o.Memory, "memory", "memory of each worker")
	flags.DurationVar(&o.Grace, "grace", time.Minute,
		"--grace of the workers; a pod that is told to end has half a minute more")
	flags.Var(&o.Namespace, "namespace", "the namespace of all objects (default that of kubectl)")
	flags.Var(&o.Queue, "queue", "the LocalQueue of Kueue in which the workers wait (default none)")
	flags.Var(&o.Pictures, "pictures",
		"the claim (PersistentVolumeClaim) with the pictures, as data get or a folder has them; read only")
	flags.Var(&o.Storage, "storage", "size of the database's claim")
	flags.Var(&o.StorageClass, "storage-class",
		"storage class of the database's claim: disks, no shared file system (default the cluster's)")
	addSet(cmd, &o.Set, "override one setting of the study")
	flags.StringVar(&o.tokenFile, "token-file", "",
		"take the token from this `FILE`: 32 letters, digits, '-' or '_', or more")
	return cmd
}

func runSubmitKubernetes(o kubernetesOptions, stdout io.Writer) (err error) {
	if o.Study, err = loadStudy(o.study, o.Set); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return usageError{err}
	}
	if slices.Contains(studies.Names(), o.study) {
		o.Shipped = o.study
	}
	o.Token = cluster.NewToken()
	if o.tokenFile != "" {
		if o.Token, err = cluster.ReadToken(o.tokenFile); err != nil {
			return fmt.Errorf("--token-file: %w", err)
		}
	}
	o.Workers, o.GPUs, o.Interrupted = int(o.workers), int(o.gpus), exitInterrupted
	text, err := o.Manifest()
	if err != nil {
		return err
	}
	_, err = stdout.Write(text)
	return err
}

func (o kubernetesOptions) check() error {
	switch {
	case o.Image == "":
		return errors.New("--image is missing: build one by cmd/igcsearch/Dockerfile")
	case strings.ContainsFunc(o.Image, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return fmt.Errorf("--image %q: want one name, like registry.example/igcsearch:1", o.Image)
	case o.workers > cluster.MaxPods:
		return fmt.Errorf("--workers %d: want at most %d, which is the limit of one Job", o.workers, cluster.MaxPods)
	case o.Grace < 0 || o.Grace > 24*time.Hour:
		return fmt.Errorf("--grace %s: want 0s to 24h", o.Grace)
	case strings.Contains(string(o.Namespace), "."):
		return fmt.Errorf("--namespace %s: want no dot in it", o.Namespace.String())
	case o.Pictures == "" && o.Study.NeedsFiles():
		return fmt.Errorf("--pictures is missing: %s trains on %s, so give the claim that has the pictures",
			o.Study.Name, o.Study.Dataset)
	}
	return nil
}
