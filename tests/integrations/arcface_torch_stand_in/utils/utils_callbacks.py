import logging

from eval import verification
from torch import distributed


class CallBackVerification:
    def __init__(
        self,
        val_targets,
        rec_prefix,
        summary_writer=None,
        image_size=(112, 112),
        wandb_logger=None,
    ):
        self.load_bin = verification.load_bin

    def __call__(self, num_update, backbone):
        logging.info("the host's own verification at step %d", num_update)


class CallBackLogging:
    def __init__(self, frequent, total_step, batch_size, start_step=0, writer=None):
        self.frequent = frequent

    def __call__(self, global_step, loss, epoch, fp16, learning_rate, grad_scaler):
        if distributed.get_rank() == 0 and global_step % self.frequent == 0:
            logging.info(
                "Loss %.4f   LearningRate %.6f   Epoch: %d   Global Step: %d",
                loss.avg,
                learning_rate,
                epoch,
                global_step,
            )
            loss.reset()
