package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"igcsearch/search"
	"igcsearch/studies"
)

type kubernetesOptions struct {
	study        string
	set          []string
	image        string
	workers      positive
	gpus         positive // of each worker; 0: not given, none
	cpu, memory  quantity // of each worker
	grace        time.Duration
	namespace    clusterName // "": that of who applies it
	queue        clusterName // "": none
	pictures     clusterName // "": none
	storage      quantity
	storageClass clusterName // "": the cluster's default
	tokenFile    string      // "": a token is made up
}

// The ports, paths and numbers that both sides of kubernetes.yaml agree on.
const (
	kubernetesPort = 8080
	// kubernetesUser is the user of the image, see Dockerfile.
	kubernetesUser = 10001
	// maxPods is how many indexes an Indexed Job may have at once.
	maxPods = 100_000
	// handOver is what a worker has beyond its --grace to end a batch and to
	// give its trials back.
	handOver = 30 * time.Second
)

func newSubmitKubernetesCommand() *cobra.Command {
	o := kubernetesOptions{workers: 1, cpu: "4", memory: "8Gi", storage: "10Gi"}
	cmd := &cobra.Command{
		Use:   "kubernetes STUDY",
		Short: "Print a study's workers and coordinator for kubectl apply",
		Long: `kubernetes prints what trains a study on a Kubernetes cluster, as YAML: an Indexed
Job of workers, the coordinator with its Deployment, Service and the claim for its
database, and a Secret with the access file. It asks no cluster; kubectl apply
gives it to one. STUDY is the name of a shipped study or a file, which then goes
along with all its settings.

Each time another token is made up. To print a study once more for a cluster that
has it, keep the token in a file and give --token-file.

Pods that are drained, preempted or evicted give their trials back and are put
elsewhere, as often as it happens. One that fails is tried three times more; what
it leaves is trained by the others. When nothing is left to train the Job is
complete, and the coordinator stays, with the page and the database.

Needs Kubernetes 1.29 or later, and an image built by cmd/igcsearch/Dockerfile;
docs/kubernetes.md goes through all of it.`,
		Example: `  igcsearch submit kubernetes quickstart --image registry.example/igcsearch:1 --workers 4 > quickstart.yaml

  # pictures from a claim, one GPU for each worker, admitted by Kueue
  igcsearch submit kubernetes table4-cifar10 --image registry.example/igcsearch:1 --workers 16 --gpus 1 --pictures pictures --queue gpus > table4.yaml`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			return runSubmitKubernetes(o, cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.image, "image", "", "the `IMAGE` of igcsearch, with its registry and tag")
	flags.Var(&o.workers, "workers", "how many workers, each a pod")
	flags.Var(&o.gpus, "gpus", "NVIDIA GPUs of each worker (default none: it trains on the processor)")
	flags.Var(&o.cpu, "cpu", "cores of each worker, which on the processor trains as many trials at once")
	flags.Var(&o.memory, "memory", "memory of each worker")
	flags.DurationVar(&o.grace, "grace", time.Minute, "--grace of the workers; a pod that is to end has half a minute more")
	flags.Var(&o.namespace, "namespace", "the namespace of all of it (default that of kubectl)")
	flags.Var(&o.queue, "queue", "the LocalQueue of Kueue that the workers wait in (default none)")
	flags.Var(&o.pictures, "pictures", "the claim (PersistentVolumeClaim) with the pictures, as data get or a folder has them; read only")
	flags.Var(&o.storage, "storage", "size of the database's claim")
	flags.Var(&o.storageClass, "storage-class", "storage class of the database's claim: disks, no shared file system (default the cluster's)")
	flags.StringArrayVar(&o.set, "set", nil, "override one setting of the study, as `key=value`; may be repeated")
	flags.StringVar(&o.tokenFile, "token-file", "", "take the token from this `FILE`: 32 letters, digits, '-' or '_', or more")
	return cmd
}

func runSubmitKubernetes(o kubernetesOptions, stdout io.Writer) error {
	study, err := loadStudy(o.study, o.set)
	if err != nil {
		return err
	}
	if err := o.check(study); err != nil {
		return usageError{err}
	}
	token := hex.EncodeToString(randomBytes(32))
	if o.tokenFile != "" {
		if token, err = readToken(o.tokenFile); err != nil {
			return err
		}
	}
	text, err := o.manifest(study, token)
	if err != nil {
		return err
	}
	_, err = stdout.Write(text)
	return err
}

func (o kubernetesOptions) check(study search.Study) error {
	switch {
	case o.image == "":
		return errors.New("--image is missing: build one by cmd/igcsearch/Dockerfile")
	case strings.ContainsFunc(o.image, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return fmt.Errorf("--image %q: want one name, like registry.example/igcsearch:1", o.image)
	case o.workers > maxPods:
		return fmt.Errorf("--workers %d: want at most %d, all that one Job may have", o.workers, maxPods)
	case o.grace < 0 || o.grace > 24*time.Hour:
		return fmt.Errorf("--grace %s: want 0s to 24h", o.grace)
	case strings.Contains(string(o.namespace), "."):
		return fmt.Errorf("--namespace %s: want no dot in it", o.namespace.String())
	case o.pictures == "" && study.NeedsFiles():
		return fmt.Errorf("--pictures is missing: %s trains on %s, so give the claim that has the pictures", study.Name, study.Dataset)
	}
	return nil
}

//go:embed kubernetes.yaml
var kubernetesYAML string

var kubernetesTemplate = template.Must(template.New("kubernetes.yaml").Funcs(template.FuncMap{
	"quote":   strconv.QuoteToASCII, // a double-quoted text of YAML has the same escapes
	"literal": yamlLiteral,
}).Parse(kubernetesYAML))

// manifest is all that the cluster is given.
func (o kubernetesOptions) manifest(study search.Study, token string) ([]byte, error) {
	name := clusterObject(study.Name)
	address := fmt.Sprintf("http://%s:%d", name, kubernetesPort)
	access, err := json.Marshal(struct {
		Address string `json:"address"`
		Token   string `json:"token"`
	}{address, token})
	if err != nil {
		return nil, err
	}
	// A shipped study is in the image, a file is not: it goes along as it is
	// with its --set.
	settings := ""
	serve := []string{"serve", o.study}
	if slices.Contains(studies.Names(), o.study) {
		for _, s := range o.set {
			serve = append(serve, "--set", s)
		}
	} else {
		text, err := toml.Marshal(study)
		if err != nil {
			return nil, fmt.Errorf("study %s: %w", study.Name, err)
		}
		settings, serve[1] = string(text), "/study/study.toml"
	}
	serve = append(serve, "--db", "/data/igcsearch.db", "--access", "/access/access.json",
		"--listen", fmt.Sprintf(":%d", kubernetesPort), "--advertise", address)
	device := "cpu"
	if o.gpus > 0 {
		device = "cuda"
	}
	worker := []string{"worker", "--access", "/access/access.json", "--outbox", "/outbox", "--device", device, "--grace", o.grace.String()}
	if o.pictures != "" {
		serve = append(serve, "--data", "/pictures")
		worker = append(worker, "--data", "/pictures")
	}
	for _, args := range [][]string{serve, worker} {
		for i, a := range args {
			args[i] = strings.ReplaceAll(a, "$", "$$") // one $, where $(NAME) is a variable of the container
		}
	}
	var b bytes.Buffer
	err = kubernetesTemplate.Execute(&b, map[string]any{
		"Name": name, "Namespace": o.namespace.String(), "Queue": o.queue.String(), "Pictures": o.pictures.String(),
		"Storage": o.storage.String(), "StorageClass": o.storageClass.String(),
		"Image": o.image, "CPU": o.cpu.String(), "Memory": o.memory.String(), "GPUs": int(o.gpus),
		"Workers": int(o.workers), "MaxFailed": int(o.workers) - 1, "Interrupted": exitInterrupted,
		"Termination": int64((o.grace + handOver + time.Second - 1) / time.Second),
		"Access":      string(access), "Settings": settings, "ServeArgs": serve, "WorkerArgs": worker,
		"Port": kubernetesPort, "User": kubernetesUser, "Probe": "/assets/icon.svg", // which asks no database
	})
	return b.Bytes(), err
}

var tokenRE = regexp.MustCompile(`^[A-Za-z0-9_-]{32,1000}$`)

// readToken is the token in a file, without the space around it.
func readToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if !tokenRE.MatchString(token) {
		return "", fmt.Errorf("--token-file %s: want 32 letters, digits, '-' or '_', or more, like those of: openssl rand -hex 32", file)
	}
	return token, nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails, its documentation says
	return b
}

// clusterObject is the name of a study's objects: a DNS label that leaves room
// for what the Job adds to it, "-workers-99999", in the 63 letters of a host
// name. Names that had to be changed end in a digest of what they were, so no
// two studies have the same.
func clusterObject(study string) string {
	const longest = 63 - len("igcsearch-") - len("-workers-99999")
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(study))
	if plain != study || len(plain) > longest || strings.HasSuffix(plain, "-") {
		sum := sha256.Sum256([]byte(study))
		const digest = 8
		plain = plain[:min(len(plain), longest-digest-1)]
		plain = strings.TrimRight(plain, "-") + "-" + hex.EncodeToString(sum[:])[:digest]
	}
	return "igcsearch-" + plain
}

// yamlLiteral is a text as a value: a literal block indented by so many spaces
// where all of it can be printed, quoted where not.
func yamlLiteral(indent int, text string) string {
	odd := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
	if strings.ContainsFunc(text, odd) || strings.HasPrefix(text, " ") || !strings.HasSuffix(text, "\n") || strings.HasSuffix(text, "\n\n") {
		return strconv.QuoteToASCII(text)
	}
	var b strings.Builder
	b.WriteString("|\n")
	for line := range strings.Lines(text) {
		if line != "\n" {
			b.WriteString(strings.Repeat(" ", indent))
		}
		b.WriteString(line)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// clusterName is a flag for the name of something in a cluster, a DNS
// subdomain of at most 63 letters.
type clusterName string

var clusterNameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

func (n *clusterName) String() string { return string(*n) }
func (n *clusterName) Type() string   { return "NAME" }
func (n *clusterName) Set(s string) error {
	if len(s) > 63 || !clusterNameRE.MatchString(s) {
		return errors.New("want up to 63 small letters, digits, '-' and '.', starting and ending with a letter or digit")
	}
	*n = clusterName(s)
	return nil
}

// quantity is a flag for an amount as Kubernetes writes it.
type quantity string

var quantityRE = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$`)

func (q *quantity) String() string { return string(*q) }
func (q *quantity) Type() string   { return "QUANTITY" }
func (q *quantity) Set(s string) error {
	if !quantityRE.MatchString(s) || !strings.ContainsAny(s, "123456789") {
		return errors.New("want an amount like 2, 500m, 8Gi")
	}
	*q = quantity(s)
	return nil
}

var _ = []pflag.Value{(*clusterName)(nil), (*quantity)(nil)}
