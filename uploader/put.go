package uploader

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// putter makes PutObject requests without the SDK's operation stack, which
// costs about as much CPU as all the rest of a small push; DESIGN.md has the
// figures. Signer, credentials and the types of errors are the SDK's. It serves
// stores at an endpoint of their own, by path and Signature Version 4; at
// Amazon's own endpoints the SDK knows more (virtual hosts, access points), and
// makes all requests.
type putter struct {
	options s3.Options
	base    *url.URL
	signer  *v4.Signer
	skew    atomic.Int64 // what to add to our clock for the store's, in nanoseconds
}

// newPutter returns nil where the SDK is to make the requests.
func newPutter(o s3.Options, base *url.URL) *putter {
	if base == nil {
		return nil
	}
	return &putter{options: o, base: base, signer: v4.NewSigner(func(s *v4.SignerOptions) {
		s.DisableURIPathEscaping = true // S3 signs the path as it is sent
	})}
}

// put makes one PutObject request, of those members of the input that
// delivery.PutObject sets; signed is what the signature has for the body. Errors
// are of the kinds that the SDK returns.
func (p *putter) put(ctx context.Context, in *s3.PutObjectInput, signed string) (*s3.PutObjectOutput, error) {
	out, err := p.exchange(ctx, in, signed)
	if err != nil {
		return nil, &smithy.OperationError{ServiceID: "S3", OperationName: "PutObject", Err: err}
	}
	return out, nil
}

func (p *putter) exchange(ctx context.Context, in *s3.PutObjectInput, signed string) (*s3.PutObjectOutput, error) {
	req := p.request(ctx, in, signed)
	credentials, err := p.options.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now().Add(time.Duration(p.skew.Load()))
	if err := p.signer.SignHTTP(ctx, credentials, req, signed, signedAs, p.options.Region, now); err != nil {
		return nil, err
	}
	resp, err := p.options.HTTPClient.Do(req)
	if err != nil {
		return nil, &smithyhttp.RequestSendError{Err: err}
	}
	defer resp.Body.Close()
	// To its end, so that the connection can be used again.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, p.refusal(resp, body)
	case err != nil:
		return nil, &smithyhttp.RequestSendError{Err: err}
	case isError(body):
		resp.StatusCode = http.StatusInternalServerError // as the SDK has it
		return nil, p.refusal(resp, body)
	}
	return &s3.PutObjectOutput{
		ETag:              header(resp, "Etag"),
		VersionId:         header(resp, "X-Amz-Version-Id"),
		ChecksumCRC64NVME: header(resp, "X-Amz-Checksum-Crc64nvme"),

		ServerSideEncryption: types.ServerSideEncryption(resp.Header.Get("X-Amz-Server-Side-Encryption")),
	}, nil
}

// request builds the request, unsigned.
func (p *putter) request(ctx context.Context, in *s3.PutObjectInput, signed string) *http.Request {
	u := inPath(p.base, *in.Bucket+"/"+*in.Key)
	h := make(http.Header, 12)
	h["User-Agent"] = []string{"s3daemon"}
	h["X-Amz-Content-Sha256"] = []string{signed}
	set := func(name string, value *string) {
		if value != nil {
			h[name] = []string{*value}
		}
	}
	set("Content-Type", in.ContentType)
	set("X-Amz-Checksum-Crc64nvme", in.ChecksumCRC64NVME)
	set("Content-Md5", in.ContentMD5)
	set("X-Amz-Tagging", in.Tagging)
	set("If-None-Match", in.IfNoneMatch)
	if in.StorageClass != "" {
		h["X-Amz-Storage-Class"] = []string{string(in.StorageClass)}
	}
	if in.ServerSideEncryption != "" {
		h["X-Amz-Server-Side-Encryption"] = []string{string(in.ServerSideEncryption)}
	}
	set("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", in.SSEKMSKeyId)
	for name, value := range in.Metadata {
		h.Set("X-Amz-Meta-"+name, value)
	}
	req := &http.Request{
		Method: http.MethodPut, URL: u, Host: u.Host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(in.Body), ContentLength: *in.ContentLength,
	}
	if req.ContentLength == 0 {
		req.Body = http.NoBody // else it would be one of unknown length
	}
	return req.WithContext(ctx)
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 10

// isError reports whether the body of an answer is an S3 store's error.
func isError(body []byte) bool {
	decoder := xml.NewDecoder(bytes.NewReader(body))
	decoder.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	for {
		token, err := decoder.Token()
		if err != nil {
			return false
		}
		if root, ok := token.(xml.StartElement); ok {
			return strings.EqualFold(root.Name.Local, "Error")
		}
	}
}

// refusal is the error that the SDK would make of the answer.
func (p *putter) refusal(resp *http.Response, body []byte) error {
	var said struct{ Code, Message string }
	// An answer without XML in it, as proxies give, has no code.
	_ = xml.NewDecoder(bytes.NewReader(body)).Decode(&said)
	if said.Code == "RequestTimeTooSkewed" {
		p.setClock(resp)
	}
	return &awshttp.ResponseError{
		RequestID: resp.Header.Get("X-Amz-Request-Id"),
		ResponseError: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: resp},
			Err:      &smithy.GenericAPIError{Code: said.Code, Message: said.Message},
		},
	}
}

// setClock learns the store's time from an answer, for hosts whose clock is
// wrong: the next attempt is signed with it.
func (p *putter) setClock(resp *http.Response) {
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		p.skew.Store(int64(time.Until(date)))
	}
}

func header(resp *http.Response, name string) *string {
	if values := resp.Header[name]; len(values) > 0 {
		return aws.String(values[0])
	}
	return nil
}
