import json
import time

import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"]).get("parameters", {})

        def parameter(name, default):
            return parameters.get(name, {}).get("string_value", default)

        self.service_time = int(parameter("service_time_ms", "0")) / 1000
        time.sleep(int(parameter("load_time_ms", "0")) / 1000)
        if reason := parameter("fail_on_load", ""):
            raise triton.TritonModelException(reason)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        time.sleep(self.service_time)
        given = triton.get_input_tensor_by_name(request, "INPUT").as_numpy()
        return triton.InferenceResponse([triton.Tensor("OUTPUT", given)])
