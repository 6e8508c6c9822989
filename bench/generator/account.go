package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// maxNonceRetries is how often a request is signed anew because its nonce was refused.
const maxNonceRetries = 5

// contact is what servers are told that insist on one.
const contact = "mailto:bench@example.test"

// maxAnswerBytes bounds every answer that is read.
const maxAnswerBytes = 1 << 20

var base64url = base64.RawURLEncoding

// directory holds the URLs that are used (RFC 8555 §7.1.1).
type directory struct {
	NewNonce   string `json:"newNonce"`
	NewAccount string `json:"newAccount"`
	NewOrder   string `json:"newOrder"`
}

// publicKey is a JWK with its members in the order of RFC 7638 §3.3.
type publicKey struct {
	Curve string `json:"crv"`
	Type  string `json:"kty"`
	X     string `json:"x"`
	Y     string `json:"y"`
}

// account speaks for one key; one worker uses it at a time.
type account struct {
	http       *http.Client
	directory  directory
	key        *ecdsa.PrivateKey
	public     publicKey
	thumbprint string
	url        string
	nonce      string // the one that the last answer brought, "" when it is used up
	requests   int
	badNonces  int
}

// refusal is an answer with a problem document.
type refusal struct {
	status int
	body   []byte
}

func (r *refusal) Error() string {
	var problem struct{ Type, Detail string }
	if json.Unmarshal(r.body, &problem) == nil && problem.Type != "" {
		return fmt.Sprintf("%d %s %s", r.status, problem.Type, problem.Detail)
	}
	return fmt.Sprintf("%d %.200s", r.status, r.body)
}

func (r *refusal) is(kind string) bool {
	var problem struct{ Type string }
	return json.Unmarshal(r.body, &problem) == nil && strings.HasSuffix(problem.Type, ":"+kind)
}

// answer is what came back, its body read.
type answer struct {
	body     []byte
	location string
}

func newAccount(client *http.Client, urls directory) (*account, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	point, err := key.PublicKey.Bytes() // 0x04, x, y
	if err != nil {
		return nil, err
	}
	public := publicKey{"P-256", "EC", base64url.EncodeToString(point[1:33]), base64url.EncodeToString(point[33:])}
	canonical, err := json.Marshal(public)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(canonical)
	return &account{
		http:       client,
		directory:  urls,
		key:        key,
		public:     public,
		thumbprint: base64url.EncodeToString(digest[:]),
	}, nil
}

// register makes the account at the server, bound to an external one where a key id is given.
func (a *account) register(bindingID, bindingKey string) error {
	payload := map[string]any{"termsOfServiceAgreed": true, "contact": []string{contact}}
	if bindingID != "" {
		mac, err := base64url.DecodeString(strings.TrimRight(bindingKey, "="))
		if err != nil {
			return fmt.Errorf("binding key: %w", err)
		}
		binding, err := a.bind(bindingID, mac)
		if err != nil {
			return err
		}
		payload["externalAccountBinding"] = binding
	}
	got, err := a.post(a.directory.NewAccount, payload)
	if err != nil {
		return fmt.Errorf("newAccount: %w", err)
	}
	if got.location == "" {
		return fmt.Errorf("newAccount: the answer names no account")
	}
	a.url = got.location
	return nil
}

// bind returns the external account binding of RFC 8555 §7.3.4.
func (a *account) bind(id string, mac []byte) (map[string]string, error) {
	protected, err := encoded(map[string]any{"alg": "HS256", "kid": id, "url": a.directory.NewAccount})
	if err != nil {
		return nil, err
	}
	payload, err := encoded(a.public)
	if err != nil {
		return nil, err
	}
	sum := hmac.New(sha256.New, mac)
	io.WriteString(sum, protected+"."+payload)
	return map[string]string{
		"protected": protected,
		"payload":   payload,
		"signature": base64url.EncodeToString(sum.Sum(nil)),
	}, nil
}

// post sends a signed request; a nil payload makes it a POST-as-GET.
func (a *account) post(url string, payload any) (answer, error) {
	for attempt := 0; ; attempt++ {
		body, err := a.sealed(url, payload)
		if err != nil {
			return answer{}, err
		}
		got, err := a.send(url, body)
		if problem, isRefusal := err.(*refusal); isRefusal && problem.is("badNonce") && attempt < maxNonceRetries {
			a.badNonces++
			continue
		}
		return got, err
	}
}

// read is a POST-as-GET whose JSON goes into what.
func (a *account) read(url string, what any) error {
	got, err := a.post(url, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(got.body, what)
}

func (a *account) sealed(url string, payload any) ([]byte, error) {
	nonce, err := a.takeNonce()
	if err != nil {
		return nil, err
	}
	header := map[string]any{"alg": "ES256", "nonce": nonce, "url": url}
	if a.url == "" {
		header["jwk"] = a.public
	} else {
		header["kid"] = a.url
	}
	protected, err := encoded(header)
	if err != nil {
		return nil, err
	}
	text := ""
	if payload != nil {
		if text, err = encoded(payload); err != nil {
			return nil, err
		}
	}
	digest := sha256.Sum256([]byte(protected + "." + text))
	r, s, err := ecdsa.Sign(rand.Reader, a.key, digest[:])
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 64) // RFC 7518 §3.4: r and s, 32 octets each
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return json.Marshal(map[string]string{
		"protected": protected,
		"payload":   text,
		"signature": base64url.EncodeToString(signature),
	})
}

func (a *account) takeNonce() (string, error) {
	if a.nonce == "" {
		got, err := a.http.Head(a.directory.NewNonce)
		if err != nil {
			return "", err
		}
		got.Body.Close()
		a.requests++
		a.nonce = got.Header.Get("Replay-Nonce")
	}
	nonce := a.nonce
	a.nonce = ""
	if nonce == "" {
		return "", fmt.Errorf("newNonce brought no nonce")
	}
	return nonce, nil
}

func (a *account) send(url string, body []byte) (answer, error) {
	got, err := a.http.Post(url, "application/jose+json", bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	defer got.Body.Close()
	a.requests++
	a.nonce = got.Header.Get("Replay-Nonce")
	text, err := io.ReadAll(io.LimitReader(got.Body, maxAnswerBytes))
	if err != nil {
		return answer{}, err
	}
	if got.StatusCode >= http.StatusMultipleChoices {
		return answer{}, &refusal{got.StatusCode, text}
	}
	return answer{text, got.Header.Get("Location")}, nil
}

func encoded(document any) (string, error) {
	text, err := json.Marshal(document)
	return base64url.EncodeToString(text), err
}

// fetchDirectory returns the URLs of the server.
func fetchDirectory(client *http.Client, url string) (directory, error) {
	var urls directory
	got, err := client.Get(url)
	if err != nil {
		return urls, err
	}
	defer got.Body.Close()
	if err := json.NewDecoder(io.LimitReader(got.Body, maxAnswerBytes)).Decode(&urls); err != nil {
		return urls, fmt.Errorf("directory: %w", err)
	}
	if urls.NewOrder == "" || urls.NewNonce == "" || urls.NewAccount == "" {
		return urls, fmt.Errorf("directory %s lacks one of the three URLs that are needed", url)
	}
	return urls, nil
}

// pollPause is how long a client waits before it looks for the n-th time, n from 0 on.
func pollPause(n int) time.Duration {
	switch n {
	case 0:
		return 5 * time.Millisecond
	case 1:
		return 10 * time.Millisecond
	default:
		return 20 * time.Millisecond
	}
}

// parsed returns the JSON object of an answer.
func parsed[T any](got answer) (T, error) {
	var object T
	err := json.Unmarshal(got.body, &object)
	return object, err
}
