from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_deletion_with_grace")]

    operations = [
        migrations.AddField(
            model_name="user",
            name="language",
            field=models.CharField(
                blank=True,
                default="",
                help_text="Of letters; empty until they sign in or choose one.",
                max_length=10,
                verbose_name="language",
            ),
        ),
    ]
