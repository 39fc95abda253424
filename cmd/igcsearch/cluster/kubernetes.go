package cluster

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode"

	"igcsearch/search"
	"igcsearch/studies"
)

// Kubernetes describes what a cluster needs to train a study: a Job of workers
// and a coordinator.
type Kubernetes struct {
	Study search.Study
	// Shipped is the name under which the image has the study, without the
	// settings Set. If it is "", the manifest contains the study.
	Shipped string
	Set     []string
	Token   string // of the access file

	Image       string
	Workers     int
	GPUs        int      // of each worker; 0: the processor trains
	CPU, Memory Quantity // of each worker
	// Grace is how long a worker may train on after it was told to end.
	Grace        time.Duration
	Namespace    Name // "": that of kubectl
	Queue        Name // of Kueue; "": none
	Pictures     Name // a PersistentVolumeClaim; "": none
	Storage      Quantity
	StorageClass Name // "": the cluster's default
	// Interrupted is the exit code of a worker that ended because it was told to.
	Interrupted int
}

// The port, paths and numbers that the commands and kubernetes.yaml share.
const (
	kubernetesPort = 8080
	// kubernetesUser is the user of the image, see Dockerfile.
	kubernetesUser = 10001
	// MaxPods is how many indexes an Indexed Job may have at once.
	MaxPods = 100_000
	// handOver is how long a worker has after Grace to end a batch and to give
	// its trials back.
	handOver = 30 * time.Second

	accessFile = "/access/access.json"
	studyFile  = "/study/study.toml"
	pictures   = "/pictures"
)

//go:embed kubernetes.yaml
var kubernetesYAML string

var kubernetesTemplate = template.Must(template.New("kubernetes.yaml").Funcs(template.FuncMap{
	"quote":   strconv.QuoteToASCII, // a double-quoted text of YAML has the same escapes
	"literal": yamlLiteral,
}).Parse(kubernetesYAML))

// Manifest returns what the cluster gets, as YAML.
func (k Kubernetes) Manifest() ([]byte, error) {
	name := objectName(k.Study.Name)
	address := fmt.Sprintf("http://%s:%d", name, kubernetesPort)
	access, err := json.Marshal(struct {
		Address string `json:"address"`
		Token   string `json:"token"`
	}{address, k.Token})
	if err != nil {
		return nil, err
	}
	settings := ""
	serve := []string{"serve", k.Shipped}
	if k.Shipped != "" {
		serve = append(serve, setArgs(k.Set)...)
	} else {
		text, err := studies.Encode(k.Study)
		if err != nil {
			return nil, fmt.Errorf("study %s: %w", k.Study.Name, err)
		}
		settings, serve[1] = string(text), studyFile
	}
	serve = append(serve, "--db", "/data/igcsearch.db", "--access", accessFile,
		"--listen", fmt.Sprintf(":%d", kubernetesPort), "--advertise", address)
	device := "cpu"
	if k.GPUs > 0 {
		device = "cuda"
	}
	worker := []string{
		"worker", "--access", accessFile, "--outbox", "/outbox", "--device", device, "--grace", k.Grace.String(),
	}
	if k.Pictures != "" {
		serve = append(serve, "--data", pictures)
		worker = append(worker, "--data", pictures)
	}
	var b bytes.Buffer
	err = kubernetesTemplate.Execute(&b, map[string]any{
		"Name": name, "Namespace": string(k.Namespace), "Queue": string(k.Queue), "Pictures": string(k.Pictures),
		"Storage": string(k.Storage), "StorageClass": string(k.StorageClass),
		"Image": k.Image, "CPU": string(k.CPU), "Memory": string(k.Memory), "GPUs": k.GPUs,
		"Workers": k.Workers, "MaxFailed": k.Workers - 1, "Interrupted": k.Interrupted,
		"Termination": int64((k.Grace + handOver + time.Second - 1) / time.Second),
		"Access":      string(access), "Settings": settings,
		"ServeArgs": containerArgs(serve), "WorkerArgs": containerArgs(worker),
		"Port": kubernetesPort, "User": kubernetesUser, "Probe": "/assets/icon.svg", // it does not read the database
	})
	return b.Bytes(), err
}

// containerArgs writes each "$" twice, because "$(NAME)" is a variable in the
// arguments of a container.
func containerArgs(args []string) []string {
	list := make([]string, len(args))
	for i, a := range args {
		list[i] = strings.ReplaceAll(a, "$", "$$")
	}
	return list
}

// NewToken makes up a token for an access file.
func NewToken() string {
	b := make([]byte, 32)
	rand.Read(b) // its documentation says that it never fails
	return hex.EncodeToString(b)
}

var tokenRE = regexp.MustCompile(`^[A-Za-z0-9_-]{32,1000}$`)

// ReadToken returns the token in a file, without the space around it.
func ReadToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if !tokenRE.MatchString(token) {
		return "", fmt.Errorf("%s has no token of 32 or more letters, digits, '-' or '_', "+
			"as this command prints one: openssl rand -hex 32", file)
	}
	return token, nil
}

// objectName returns the name of a study's objects in the cluster. It is a DNS
// label, and short enough for what the Job adds to it, "-workers-99999", in the
// 63 letters of a host name. A name that had to be changed ends in a digest of
// the study's name, so two studies never have the same.
func objectName(study string) string {
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

// yamlLiteral writes a text as a value of YAML. It is a literal block, indented
// by so many spaces, if all of it can be printed, and quoted otherwise.
func yamlLiteral(indent int, text string) string {
	odd := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
	block := !strings.ContainsFunc(text, odd) && !strings.HasPrefix(text, " ") &&
		strings.HasSuffix(text, "\n") && !strings.HasSuffix(text, "\n\n")
	if !block {
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

// Name is a flag for the name of something in a cluster, a DNS subdomain of at
// most 63 letters.
type Name string

var nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

func (n *Name) String() string { return string(*n) }

// Type is what the help calls the value.
func (n *Name) Type() string { return "NAME" }

// Set takes the value of the flag.
func (n *Name) Set(s string) error {
	if len(s) > 63 || !nameRE.MatchString(s) {
		return errors.New("want up to 63 small letters, digits, '-' and '.', " +
			"starting and ending with a letter or digit")
	}
	*n = Name(s)
	return nil
}

// Quantity is a flag for an amount as Kubernetes writes it, like 500m or 8Gi.
type Quantity string

var quantityRE = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$`)

func (q *Quantity) String() string { return string(*q) }

// Type is what the help calls the value.
func (q *Quantity) Type() string { return "QUANTITY" }

// Set takes the value of the flag.
func (q *Quantity) Set(s string) error {
	if !quantityRE.MatchString(s) || !strings.ContainsAny(s, "123456789") {
		return errors.New("want an amount like 2, 500m, 8Gi")
	}
	*q = Quantity(s)
	return nil
}
