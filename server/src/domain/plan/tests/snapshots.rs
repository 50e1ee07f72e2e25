use super::*;

fn manifest(plan: &Plan) -> String {
    plan.objects().map(|object| to_yaml(&object.body)).collect::<Vec<_>>().join("---\n")
}

#[test]
fn a_lease_with_a_gpu_scales_on_gpu_queue_and_cpu() {
    let scaling = auto([
        (MetricName::GpuUtilization, 80),
        (MetricName::QueueTime, 10_000),
        (MetricName::CpuUtilization, 75),
    ]);
    let lease = lease(spec(1, scaling), &settings());
    let plan = plan(&lease, &settings(), &Capabilities::assumed());
    insta::assert_snapshot!(manifest(&plan), @r#"
    apiVersion: apps/v1
    kind: Deployment
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      progressDeadlineSeconds: 2400
      selector:
        matchLabels:
          tms.internal/lease-id: 0123456789abcdef0123456789abcdef
      strategy:
        type: RollingUpdate
        rollingUpdate:
          maxSurge: 0
          maxUnavailable: 1
      template:
        metadata:
          annotations:
            example.com/contact: vision@example.com
          labels:
            app.kubernetes.io/managed-by: tms
            app.kubernetes.io/name: triton
            app.kubernetes.io/part-of: inference
            team: vision
            tms.internal/installation: main
            tms.internal/lease-id: 0123456789abcdef0123456789abcdef
        spec:
          automountServiceAccountToken: false
          containers:
          - name: triton
            args:
            - tritonserver
            - --model-repository=/models
            - --model-control-mode=explicit
            - --strict-readiness=true
            - --exit-timeout-secs=60
            - --grpc-max-connection-age=30000
            - --http-restricted-api=model-repository:tms-key=$(TMS_REPOSITORY_KEY)
            - --grpc-restricted-protocol=model-repository:tms-key=$(TMS_REPOSITORY_KEY)
            env:
            - name: TMS_REPOSITORY_KEY
              valueFrom:
                fieldRef:
                  fieldPath: metadata.uid
            image: nvcr.io/nvidia/tritonserver:26.07-py3
            lifecycle:
              preStop:
                sleep:
                  seconds: 10
            livenessProbe:
              failureThreshold: 6
              httpGet:
                path: /v2/health/live
                port: http
              periodSeconds: 10
              timeoutSeconds: 5
            ports:
            - name: http
              containerPort: 8000
            - name: grpc
              containerPort: 8001
            - name: metrics
              containerPort: 8002
            readinessProbe:
              failureThreshold: 3
              httpGet:
                path: /v2/health/ready
                port: http
              periodSeconds: 5
              timeoutSeconds: 5
            resources:
              limits:
                memory: 16Gi
                nvidia.com/gpu: "1"
              requests:
                cpu: "4"
                memory: 16Gi
            securityContext:
              allowPrivilegeEscalation: false
              capabilities:
                drop:
                - ALL
            startupProbe:
              failureThreshold: 150
              httpGet:
                path: /v2/health/live
                port: http
              periodSeconds: 2
              timeoutSeconds: 5
            volumeMounts:
            - name: models
              mountPath: /models
              readOnly: true
            - name: shm
              mountPath: /dev/shm
            - name: tmp
              mountPath: /tmp
            - name: claim-0
              mountPath: /claims/models
              readOnly: true
          enableServiceLinks: false
          imagePullSecrets:
          - name: ngc-pull
          initContainers:
          - name: agent
            args:
            - agent
            - --lease=0123456789abcdef0123456789abcdef
            env:
            - name: TMS_MODELS
              value: |-
                [
                  {
                    "name": "tokenizer",
                    "uri": "pvc://models/tokenizer"
                  },
                  {
                    "name": "bert",
                    "uri": "https://models.example.com/bert.tar.gz",
                    "secret": "model-credentials"
                  }
                ]
            - name: TMS_REPOSITORY_KEY
              valueFrom:
                fieldRef:
                  fieldPath: metadata.uid
            - name: TMS_MAXIMUM_BYTES
              value: "107374182400"
            - name: TMS_MAXIMUM_TOTAL_BYTES
              value: "214748364800"
            - name: TMS_ALLOW_HTTP
              value: "false"
            image: tms-server:1.0.0
            ports:
            - name: agent
              containerPort: 8010
            readinessProbe:
              failureThreshold: 1
              httpGet:
                path: /ready
                port: agent
              periodSeconds: 2
              timeoutSeconds: 5
            resources:
              limits:
                memory: 256Mi
              requests:
                cpu: 50m
                memory: 64Mi
            restartPolicy: Always
            securityContext:
              allowPrivilegeEscalation: false
              capabilities:
                drop:
                - ALL
              readOnlyRootFilesystem: true
            startupProbe:
              failureThreshold: 900
              httpGet:
                path: /fetched
                port: agent
              periodSeconds: 2
            terminationMessagePolicy: File
            volumeMounts:
            - name: models
              mountPath: /models
            - name: claim-0
              mountPath: /claims/models
              readOnly: true
            - name: credentials-0
              mountPath: /credentials/model-credentials
              readOnly: true
          securityContext:
            fsGroup: 1000
            runAsGroup: 1000
            runAsNonRoot: true
            runAsUser: 1000
            seccompProfile:
              type: RuntimeDefault
          terminationGracePeriodSeconds: 85
          tolerations:
          - effect: NoSchedule
            key: nvidia.com/gpu
            operator: Exists
          volumes:
          - name: models
            emptyDir:
              sizeLimit: 205312Mi
          - name: shm
            emptyDir:
              medium: Memory
              sizeLimit: 2Gi
          - name: tmp
            emptyDir:
              sizeLimit: 50Gi
          - name: claim-0
            persistentVolumeClaim:
              claimName: models
              readOnly: true
          - name: credentials-0
            secret:
              secretName: model-credentials
    ---
    apiVersion: v1
    kind: Service
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      ports:
      - name: http
        port: 8000
        targetPort: http
      - name: grpc
        appProtocol: kubernetes.io/h2c
        port: 8001
        targetPort: grpc
      selector:
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    ---
    apiVersion: v1
    kind: Service
    metadata:
      name: tms-0123456789abcdef0123456789abcdef-headless
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      clusterIP: None
      ports:
      - name: http
        port: 8000
        targetPort: http
      - name: grpc
        appProtocol: kubernetes.io/h2c
        port: 8001
        targetPort: grpc
      selector:
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    ---
    apiVersion: autoscaling/v2
    kind: HorizontalPodAutoscaler
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      behavior:
        scaleDown:
          policies:
          - type: Pods
            periodSeconds: 120
            value: 1
          selectPolicy: Min
          stabilizationWindowSeconds: 300
        scaleUp:
          policies:
          - type: Percent
            periodSeconds: 60
            value: 100
          - type: Pods
            periodSeconds: 60
            value: 2
          selectPolicy: Max
          stabilizationWindowSeconds: 15
      maxReplicas: 5
      metrics:
      - type: ContainerResource
        containerResource:
          name: cpu
          container: triton
          target:
            type: Utilization
            averageUtilization: 75
      - type: Pods
        pods:
          metric:
            name: tms_gpu_utilization
          target:
            type: AverageValue
            averageValue: "80"
      - type: Pods
        pods:
          metric:
            name: tms_avg_request_queue_duration
          target:
            type: AverageValue
            averageValue: 10k
      minReplicas: 1
      scaleTargetRef:
        apiVersion: apps/v1
        kind: Deployment
        name: tms-0123456789abcdef0123456789abcdef
    ---
    apiVersion: monitoring.coreos.com/v1
    kind: PodMonitor
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        release: prometheus
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      podMetricsEndpoints:
      - interval: 15s
        metricRelabelings:
        - action: keep
          regex: nv_inference_(request_success|request_failure|queue_duration_us|compute_infer_duration_us|pending_request_count|count|exec_count)|nv_gpu_.*|nv_model_load_duration_secs|nv_trt_llm_.*
          sourceLabels:
          - __name__
        path: /metrics
        port: metrics
        scrapeTimeout: 10s
      podTargetLabels:
      - tms.internal/lease-id
      selector:
        matchLabels:
          tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    ---
    apiVersion: monitoring.coreos.com/v1
    kind: PrometheusRule
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        release: prometheus
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      groups:
      - name: tms-0123456789abcdef0123456789abcdef-autoscaling
        interval: 15s
        rules:
        - record: tms_gpu_utilization
          expr: 100 * avg by (namespace, pod) (avg_over_time(nv_gpu_utilization{job="tms/tms-0123456789abcdef0123456789abcdef",container="triton"}[60s]))
          labels:
            tms_lease_id: 0123456789abcdef0123456789abcdef
        - record: tms_avg_request_queue_duration
          expr: |-
            (
                sum by (namespace, pod) (rate(nv_inference_queue_duration_us{job="tms/tms-0123456789abcdef0123456789abcdef",container="triton"}[60s]))
              /
                (sum by (namespace, pod) (rate(nv_inference_request_success{job="tms/tms-0123456789abcdef0123456789abcdef",container="triton"}[60s])) > 0)
            )
            or
            (sum by (namespace, pod) (nv_inference_pending_request_count{job="tms/tms-0123456789abcdef0123456789abcdef",container="triton"}) == 0)
          labels:
            tms_lease_id: 0123456789abcdef0123456789abcdef
      - name: tms-0123456789abcdef0123456789abcdef-targets
        interval: 15s
        rules:
        - record: tms_autoscaling_target
          expr: vector(80)
          labels:
            metric: gpuUtilization
            tms_lease_id: 0123456789abcdef0123456789abcdef
        - record: tms_autoscaling_target
          expr: vector(10000)
          labels:
            metric: queueTime
            tms_lease_id: 0123456789abcdef0123456789abcdef
    ---
    apiVersion: policy/v1
    kind: PodDisruptionBudget
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      maxUnavailable: 1
      selector:
        matchLabels:
          tms.internal/lease-id: 0123456789abcdef0123456789abcdef
      unhealthyPodEvictionPolicy: AlwaysAllow
    "#);
}

#[test]
fn a_lease_without_gpu_keeps_its_replicas() {
    let mut spec = spec(0, Scaling::Fixed { replicas: 2 });
    spec.triton.environment =
        texts([("OMP_NUM_THREADS", "4"), ("PROMPT", "costs $5, $(HOME)"), ("VERBOSE", "on")]);
    spec.triton.node_selector = texts([("kubernetes.io/arch", "amd64")]);
    spec.triton.tolerations = vec![Toleration {
        key: "dedicated".to_owned(),
        operator: "Equal".to_owned(),
        value: "inference".to_owned(),
        effect: "NoExecute".to_owned(),
        toleration_seconds: Some(60),
    }];
    spec.triton.affinity =
        Some(json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 1,
            "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}},
        }]}}));
    let lease = lease(spec, &settings());
    let plan = plan(&lease, &settings(), &Capabilities::assumed());
    insta::assert_snapshot!(manifest(&plan), @r#"
    apiVersion: apps/v1
    kind: Deployment
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      progressDeadlineSeconds: 2400
      replicas: 2
      selector:
        matchLabels:
          tms.internal/lease-id: 0123456789abcdef0123456789abcdef
      strategy:
        type: RollingUpdate
        rollingUpdate:
          maxSurge: 1
          maxUnavailable: 0
      template:
        metadata:
          annotations:
            example.com/contact: vision@example.com
          labels:
            app.kubernetes.io/managed-by: tms
            app.kubernetes.io/name: triton
            app.kubernetes.io/part-of: inference
            team: vision
            tms.internal/installation: main
            tms.internal/lease-id: 0123456789abcdef0123456789abcdef
        spec:
          affinity:
            podAntiAffinity:
              preferredDuringSchedulingIgnoredDuringExecution:
              - podAffinityTerm:
                  labelSelector: {}
                  topologyKey: kubernetes.io/hostname
                weight: 1
          automountServiceAccountToken: false
          containers:
          - name: triton
            args:
            - tritonserver
            - --model-repository=/models
            - --model-control-mode=explicit
            - --strict-readiness=true
            - --exit-timeout-secs=60
            - --grpc-max-connection-age=30000
            - --http-restricted-api=model-repository:tms-key=$(TMS_REPOSITORY_KEY)
            - --grpc-restricted-protocol=model-repository:tms-key=$(TMS_REPOSITORY_KEY)
            - --allow-gpu-metrics=false
            env:
            - name: NVIDIA_VISIBLE_DEVICES
              value: void
            - name: OMP_NUM_THREADS
              value: "4"
            - name: PROMPT
              value: costs $$5, $$(HOME)
            - name: VERBOSE
              value: "on"
            - name: TMS_REPOSITORY_KEY
              valueFrom:
                fieldRef:
                  fieldPath: metadata.uid
            image: nvcr.io/nvidia/tritonserver:26.07-py3
            lifecycle:
              preStop:
                sleep:
                  seconds: 10
            livenessProbe:
              failureThreshold: 6
              httpGet:
                path: /v2/health/live
                port: http
              periodSeconds: 10
              timeoutSeconds: 5
            ports:
            - name: http
              containerPort: 8000
            - name: grpc
              containerPort: 8001
            - name: metrics
              containerPort: 8002
            readinessProbe:
              failureThreshold: 3
              httpGet:
                path: /v2/health/ready
                port: http
              periodSeconds: 5
              timeoutSeconds: 5
            resources:
              limits:
                memory: 16Gi
              requests:
                cpu: "4"
                memory: 16Gi
            securityContext:
              allowPrivilegeEscalation: false
              capabilities:
                drop:
                - ALL
            startupProbe:
              failureThreshold: 150
              httpGet:
                path: /v2/health/live
                port: http
              periodSeconds: 2
              timeoutSeconds: 5
            volumeMounts:
            - name: models
              mountPath: /models
              readOnly: true
            - name: shm
              mountPath: /dev/shm
            - name: tmp
              mountPath: /tmp
            - name: claim-0
              mountPath: /claims/models
              readOnly: true
          enableServiceLinks: false
          imagePullSecrets:
          - name: ngc-pull
          initContainers:
          - name: agent
            args:
            - agent
            - --lease=0123456789abcdef0123456789abcdef
            env:
            - name: TMS_MODELS
              value: |-
                [
                  {
                    "name": "tokenizer",
                    "uri": "pvc://models/tokenizer"
                  },
                  {
                    "name": "bert",
                    "uri": "https://models.example.com/bert.tar.gz",
                    "secret": "model-credentials"
                  }
                ]
            - name: TMS_REPOSITORY_KEY
              valueFrom:
                fieldRef:
                  fieldPath: metadata.uid
            - name: TMS_MAXIMUM_BYTES
              value: "107374182400"
            - name: TMS_MAXIMUM_TOTAL_BYTES
              value: "214748364800"
            - name: TMS_ALLOW_HTTP
              value: "false"
            image: tms-server:1.0.0
            ports:
            - name: agent
              containerPort: 8010
            readinessProbe:
              failureThreshold: 1
              httpGet:
                path: /ready
                port: agent
              periodSeconds: 2
              timeoutSeconds: 5
            resources:
              limits:
                memory: 256Mi
              requests:
                cpu: 50m
                memory: 64Mi
            restartPolicy: Always
            securityContext:
              allowPrivilegeEscalation: false
              capabilities:
                drop:
                - ALL
              readOnlyRootFilesystem: true
            startupProbe:
              failureThreshold: 900
              httpGet:
                path: /fetched
                port: agent
              periodSeconds: 2
            terminationMessagePolicy: File
            volumeMounts:
            - name: models
              mountPath: /models
            - name: claim-0
              mountPath: /claims/models
              readOnly: true
            - name: credentials-0
              mountPath: /credentials/model-credentials
              readOnly: true
          nodeSelector:
            kubernetes.io/arch: amd64
          securityContext:
            fsGroup: 1000
            runAsGroup: 1000
            runAsNonRoot: true
            runAsUser: 1000
            seccompProfile:
              type: RuntimeDefault
          terminationGracePeriodSeconds: 85
          tolerations:
          - effect: NoExecute
            key: dedicated
            operator: Equal
            tolerationSeconds: 60
            value: inference
          volumes:
          - name: models
            emptyDir:
              sizeLimit: 205312Mi
          - name: shm
            emptyDir:
              medium: Memory
              sizeLimit: 2Gi
          - name: tmp
            emptyDir:
              sizeLimit: 50Gi
          - name: claim-0
            persistentVolumeClaim:
              claimName: models
              readOnly: true
          - name: credentials-0
            secret:
              secretName: model-credentials
    ---
    apiVersion: v1
    kind: Service
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      ports:
      - name: http
        port: 8000
        targetPort: http
      - name: grpc
        appProtocol: kubernetes.io/h2c
        port: 8001
        targetPort: grpc
      selector:
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    ---
    apiVersion: v1
    kind: Service
    metadata:
      name: tms-0123456789abcdef0123456789abcdef-headless
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      clusterIP: None
      ports:
      - name: http
        port: 8000
        targetPort: http
      - name: grpc
        appProtocol: kubernetes.io/h2c
        port: 8001
        targetPort: grpc
      selector:
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    ---
    apiVersion: monitoring.coreos.com/v1
    kind: PodMonitor
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        release: prometheus
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      podMetricsEndpoints:
      - interval: 15s
        metricRelabelings:
        - action: keep
          regex: nv_inference_(request_success|request_failure|queue_duration_us|compute_infer_duration_us|pending_request_count|count|exec_count)|nv_gpu_.*|nv_model_load_duration_secs|nv_trt_llm_.*
          sourceLabels:
          - __name__
        path: /metrics
        port: metrics
        scrapeTimeout: 10s
      podTargetLabels:
      - tms.internal/lease-id
      selector:
        matchLabels:
          tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    ---
    apiVersion: policy/v1
    kind: PodDisruptionBudget
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        example.com/contact: vision@example.com
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        app.kubernetes.io/part-of: inference
        experiment: "42"
        team: vision
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      maxUnavailable: 1
      selector:
        matchLabels:
          tms.internal/lease-id: 0123456789abcdef0123456789abcdef
      unhealthyPodEvictionPolicy: AlwaysAllow
    "#);
}

#[test]
fn a_lease_scales_on_every_metric_with_figures_of_dcgm() {
    let settings = Settings {
        gpu_source: GpuSource::Dcgm,
        part_of: None,
        custom_labels: BTreeMap::new(),
        custom_annotations: BTreeMap::new(),
        pull_secrets: Vec::new(),
        pre_stop_seconds: 0,
        ..settings()
    };
    let scaling = auto(MetricName::ALL.map(|metric| (metric, if metric.is_percent() { 85 } else { 1_500 })));
    let lease = lease(Spec { labels: BTreeMap::new(), ..spec(2, scaling) }, &settings);
    let capabilities = Capabilities { kubernetes: Some((1, 35)), ..Capabilities::assumed() };
    insta::assert_snapshot!(manifest(&plan(&lease, &settings, &capabilities)), @r#"
    apiVersion: apps/v1
    kind: Deployment
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      progressDeadlineSeconds: 2400
      selector:
        matchLabels:
          tms.internal/lease-id: 0123456789abcdef0123456789abcdef
      strategy:
        type: RollingUpdate
        rollingUpdate:
          maxSurge: 0
          maxUnavailable: 1
      template:
        metadata:
          labels:
            app.kubernetes.io/managed-by: tms
            app.kubernetes.io/name: triton
            tms.internal/installation: main
            tms.internal/lease-id: 0123456789abcdef0123456789abcdef
        spec:
          automountServiceAccountToken: false
          containers:
          - name: triton
            args:
            - tritonserver
            - --model-repository=/models
            - --model-control-mode=explicit
            - --strict-readiness=true
            - --exit-timeout-secs=60
            - --grpc-max-connection-age=30000
            - --http-restricted-api=model-repository:tms-key=$(TMS_REPOSITORY_KEY)
            - --grpc-restricted-protocol=model-repository:tms-key=$(TMS_REPOSITORY_KEY)
            env:
            - name: TMS_REPOSITORY_KEY
              valueFrom:
                fieldRef:
                  fieldPath: metadata.uid
            image: nvcr.io/nvidia/tritonserver:26.07-py3
            livenessProbe:
              failureThreshold: 6
              httpGet:
                path: /v2/health/live
                port: http
              periodSeconds: 10
              timeoutSeconds: 5
            ports:
            - name: http
              containerPort: 8000
            - name: grpc
              containerPort: 8001
            - name: metrics
              containerPort: 8002
            readinessProbe:
              failureThreshold: 3
              httpGet:
                path: /v2/health/ready
                port: http
              periodSeconds: 5
              timeoutSeconds: 5
            resources:
              limits:
                memory: 16Gi
                nvidia.com/gpu: "2"
              requests:
                cpu: "4"
                memory: 16Gi
            securityContext:
              allowPrivilegeEscalation: false
              capabilities:
                drop:
                - ALL
            startupProbe:
              failureThreshold: 150
              httpGet:
                path: /v2/health/live
                port: http
              periodSeconds: 2
              timeoutSeconds: 5
            volumeMounts:
            - name: models
              mountPath: /models
              readOnly: true
            - name: shm
              mountPath: /dev/shm
            - name: tmp
              mountPath: /tmp
            - name: claim-0
              mountPath: /claims/models
              readOnly: true
          enableServiceLinks: false
          initContainers:
          - name: agent
            args:
            - agent
            - --lease=0123456789abcdef0123456789abcdef
            env:
            - name: TMS_MODELS
              value: |-
                [
                  {
                    "name": "tokenizer",
                    "uri": "pvc://models/tokenizer"
                  },
                  {
                    "name": "bert",
                    "uri": "https://models.example.com/bert.tar.gz",
                    "secret": "model-credentials"
                  }
                ]
            - name: TMS_REPOSITORY_KEY
              valueFrom:
                fieldRef:
                  fieldPath: metadata.uid
            - name: TMS_MAXIMUM_BYTES
              value: "107374182400"
            - name: TMS_MAXIMUM_TOTAL_BYTES
              value: "214748364800"
            - name: TMS_ALLOW_HTTP
              value: "false"
            image: tms-server:1.0.0
            ports:
            - name: agent
              containerPort: 8010
            readinessProbe:
              failureThreshold: 1
              httpGet:
                path: /ready
                port: agent
              periodSeconds: 2
              timeoutSeconds: 5
            resources:
              limits:
                memory: 256Mi
              requests:
                cpu: 50m
                memory: 64Mi
            restartPolicy: Always
            securityContext:
              allowPrivilegeEscalation: false
              capabilities:
                drop:
                - ALL
              readOnlyRootFilesystem: true
            startupProbe:
              failureThreshold: 900
              httpGet:
                path: /fetched
                port: agent
              periodSeconds: 2
            terminationMessagePolicy: File
            volumeMounts:
            - name: models
              mountPath: /models
            - name: claim-0
              mountPath: /claims/models
              readOnly: true
            - name: credentials-0
              mountPath: /credentials/model-credentials
              readOnly: true
          securityContext:
            fsGroup: 1000
            runAsGroup: 1000
            runAsNonRoot: true
            runAsUser: 1000
            seccompProfile:
              type: RuntimeDefault
          terminationGracePeriodSeconds: 75
          tolerations:
          - effect: NoSchedule
            key: nvidia.com/gpu
            operator: Exists
          volumes:
          - name: models
            emptyDir:
              sizeLimit: 205312Mi
          - name: shm
            emptyDir:
              medium: Memory
              sizeLimit: 2Gi
          - name: tmp
            emptyDir:
              sizeLimit: 50Gi
          - name: claim-0
            persistentVolumeClaim:
              claimName: models
              readOnly: true
          - name: credentials-0
            secret:
              secretName: model-credentials
    ---
    apiVersion: v1
    kind: Service
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      ports:
      - name: http
        port: 8000
        targetPort: http
      - name: grpc
        appProtocol: kubernetes.io/h2c
        port: 8001
        targetPort: grpc
      selector:
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    ---
    apiVersion: v1
    kind: Service
    metadata:
      name: tms-0123456789abcdef0123456789abcdef-headless
      namespace: tms
      annotations:
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      clusterIP: None
      ports:
      - name: http
        port: 8000
        targetPort: http
      - name: grpc
        appProtocol: kubernetes.io/h2c
        port: 8001
        targetPort: grpc
      selector:
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    ---
    apiVersion: autoscaling/v2
    kind: HorizontalPodAutoscaler
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      behavior:
        scaleDown:
          policies:
          - type: Pods
            periodSeconds: 120
            value: 1
          selectPolicy: Min
          stabilizationWindowSeconds: 300
        scaleUp:
          policies:
          - type: Percent
            periodSeconds: 60
            value: 100
          - type: Pods
            periodSeconds: 60
            value: 2
          selectPolicy: Max
          stabilizationWindowSeconds: 15
          tolerance: 50m
      maxReplicas: 5
      metrics:
      - type: ContainerResource
        containerResource:
          name: cpu
          container: triton
          target:
            type: Utilization
            averageUtilization: 85
      - type: ContainerResource
        containerResource:
          name: memory
          container: triton
          target:
            type: Utilization
            averageUtilization: 85
      - type: Pods
        pods:
          metric:
            name: tms_gpu_utilization
          target:
            type: AverageValue
            averageValue: "85"
      - type: Pods
        pods:
          metric:
            name: tms_gpu_memory_utilization
          target:
            type: AverageValue
            averageValue: "85"
      - type: Pods
        pods:
          metric:
            name: tms_avg_request_queue_duration
          target:
            type: AverageValue
            averageValue: "1500"
      minReplicas: 1
      scaleTargetRef:
        apiVersion: apps/v1
        kind: Deployment
        name: tms-0123456789abcdef0123456789abcdef
    ---
    apiVersion: monitoring.coreos.com/v1
    kind: PodMonitor
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        release: prometheus
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      podMetricsEndpoints:
      - interval: 15s
        metricRelabelings:
        - action: keep
          regex: nv_inference_(request_success|request_failure|queue_duration_us|compute_infer_duration_us|pending_request_count|count|exec_count)|nv_gpu_.*|nv_model_load_duration_secs|nv_trt_llm_.*
          sourceLabels:
          - __name__
        path: /metrics
        port: metrics
        scrapeTimeout: 10s
      podTargetLabels:
      - tms.internal/lease-id
      selector:
        matchLabels:
          tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    ---
    apiVersion: monitoring.coreos.com/v1
    kind: PrometheusRule
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        release: prometheus
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      groups:
      - name: tms-0123456789abcdef0123456789abcdef-autoscaling
        interval: 15s
        rules:
        - record: tms_gpu_utilization
          expr: |-
            avg by (namespace, pod) (
              label_replace(
                label_replace(
                  avg by (exported_namespace, exported_pod) (
                    avg_over_time(DCGM_FI_DEV_GPU_UTIL{exported_namespace="tms",exported_pod=~"tms-0123456789abcdef0123456789abcdef-.+"}[60s])
                  ),
                  "namespace", "$1", "exported_namespace", "(.+)"
                ),
                "pod", "$1", "exported_pod", "(.+)"
              )
            )
            and on (namespace, pod) up{job="tms/tms-0123456789abcdef0123456789abcdef"}
          labels:
            tms_lease_id: 0123456789abcdef0123456789abcdef
        - record: tms_gpu_memory_utilization
          expr: |-
            avg by (namespace, pod) (
              label_replace(
                label_replace(
                  avg by (exported_namespace, exported_pod) (
                    100 * avg_over_time(DCGM_FI_DEV_FB_USED{exported_namespace="tms",exported_pod=~"tms-0123456789abcdef0123456789abcdef-.+"}[60s])
                    / (avg_over_time(DCGM_FI_DEV_FB_USED{exported_namespace="tms",exported_pod=~"tms-0123456789abcdef0123456789abcdef-.+"}[60s]) + avg_over_time(DCGM_FI_DEV_FB_FREE{exported_namespace="tms",exported_pod=~"tms-0123456789abcdef0123456789abcdef-.+"}[60s]) > 0)
                  ),
                  "namespace", "$1", "exported_namespace", "(.+)"
                ),
                "pod", "$1", "exported_pod", "(.+)"
              )
            )
            and on (namespace, pod) up{job="tms/tms-0123456789abcdef0123456789abcdef"}
          labels:
            tms_lease_id: 0123456789abcdef0123456789abcdef
        - record: tms_avg_request_queue_duration
          expr: |-
            (
                sum by (namespace, pod) (rate(nv_inference_queue_duration_us{job="tms/tms-0123456789abcdef0123456789abcdef",container="triton"}[60s]))
              /
                (sum by (namespace, pod) (rate(nv_inference_request_success{job="tms/tms-0123456789abcdef0123456789abcdef",container="triton"}[60s])) > 0)
            )
            or
            (sum by (namespace, pod) (nv_inference_pending_request_count{job="tms/tms-0123456789abcdef0123456789abcdef",container="triton"}) == 0)
          labels:
            tms_lease_id: 0123456789abcdef0123456789abcdef
      - name: tms-0123456789abcdef0123456789abcdef-targets
        interval: 15s
        rules:
        - record: tms_autoscaling_target
          expr: vector(85)
          labels:
            metric: gpuUtilization
            tms_lease_id: 0123456789abcdef0123456789abcdef
        - record: tms_autoscaling_target
          expr: vector(85)
          labels:
            metric: gpuMemoryUtilization
            tms_lease_id: 0123456789abcdef0123456789abcdef
        - record: tms_autoscaling_target
          expr: vector(1500)
          labels:
            metric: queueTime
            tms_lease_id: 0123456789abcdef0123456789abcdef
    ---
    apiVersion: policy/v1
    kind: PodDisruptionBudget
    metadata:
      name: tms-0123456789abcdef0123456789abcdef
      namespace: tms
      annotations:
        tms.internal/generation: "1"
      labels:
        app.kubernetes.io/managed-by: tms
        app.kubernetes.io/name: triton
        tms.internal/installation: main
        tms.internal/lease-id: 0123456789abcdef0123456789abcdef
    spec:
      maxUnavailable: 1
      selector:
        matchLabels:
          tms.internal/lease-id: 0123456789abcdef0123456789abcdef
      unhealthyPodEvictionPolicy: AlwaysAllow
    "#);
}

#[test]
fn gpu_memory_is_compared_gpu_by_gpu() {
    let lease = lease(spec(2, auto([(MetricName::GpuMemoryUtilization, 80)])), &settings());
    let plan = plan(&lease, &settings(), &Capabilities::assumed());
    let rule = find(&plan, Kind::PrometheusRule).unwrap();
    insta::assert_snapshot!(to_yaml(&rule["spec"]["groups"][0]["rules"]), @r#"
    - record: tms_gpu_memory_utilization
      expr: |-
        100 * avg by (namespace, pod) (
            avg_over_time(nv_gpu_memory_used_bytes{job="tms/tms-0123456789abcdef0123456789abcdef",container="triton"}[60s])
          /
            (avg_over_time(nv_gpu_memory_total_bytes{job="tms/tms-0123456789abcdef0123456789abcdef",container="triton"}[60s]) > 0)
        )
      labels:
        tms_lease_id: 0123456789abcdef0123456789abcdef
    "#);
}
